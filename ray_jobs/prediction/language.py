"""Language models in cross-validation: records as text for a frozen encoder, and the champion's own answer.

Both are those of predict_from_text.py and predict_llemr.py, on the folds of crossvalidate.py; what is fitted (the worth of
things, the champion fine-tuned, the calibration) is fitted on the folds that play train and tuning. The champion is one model
for all folds, so it is asked, and trained further, only where it has not learned from the hospitals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from orchestration import dbt
from orchestration.tasks import definition
from ray_jobs import predict_from_text, predict_llemr
from ray_jobs.llemr import checkpoint
from ray_jobs.prediction import calibration, fine_tuned
from ray_jobs.prediction.fine_tuned import CHAMPION
from ray_jobs.prediction.labels import read
from ray_jobs.records.embed import vectors_of
from ray_jobs.records.encoder import Encoder
from ray_jobs.records.walk import serialise
from ray_jobs.runtime import Job
from ray_jobs.task_questions import questions


def vectors(
    job: Job, rows: pl.DataFrame, splits: Mapping[int, np.ndarray], form: str
) -> dict[int, np.ndarray]:
    """Held-out fold to the vectors of all rows, float16 [rows, dimensions]; `weighed` writes other texts for every fold.

    rows: hospital, patient_id, prediction_at, label; splits: held-out fold to the role of every row.
    """
    task, events = job.params["task"], read(job, "harmonised/events")
    encoder = Encoder(predict_from_text.settings_of(job), threads=job.threads)
    instruction = predict_from_text.questions({task: None})[task]
    encoder.check_budget(predict_from_text.budget_of(job), [instruction])
    serialiser = predict_from_text.serialiser_of(job, encoder, form)
    if form != "weighed":
        told = {0: serialise(serialiser, events, rows)}
    else:
        told = {}
        for fold, split in splits.items():
            asked = rows.with_columns(pl.Series("split", split))
            worth = predict_from_text.worth_of(serialiser, events, {task: rows}, asked)
            told[fold] = serialise(replace(serialiser, worth=worth), events, rows)
    texts = {str(fold): [(record, instruction) for record in of] for fold, of in told.items()}
    made, _ = vectors_of(job, encoder, serialiser.name, texts)
    return {fold: made[str(fold if fold in told else 0)] for fold in splits}


def why_not_asked(job: Job, rows: pl.DataFrame) -> str | None:
    """Why the champion cannot be judged on these rows: it is not there, or it learned from their hospitals; else None.

    rows: hospital, person_group. A hospital whose persons another one shares counts as that one too.
    """
    if CHAMPION not in job.config.inputs:
        return f"no {CHAMPION} stands in the data root"
    learned = checkpoint.learned_from(job.path(CHAMPION))
    if learned is None:
        return f"{CHAMPION} does not say from which hospitals it learned; train it again"
    splits = read(job, "splits")
    groups = splits.filter(pl.col("hospital").is_in(learned))["person_group"].unique()
    known = pl.col("hospital").is_in(learned) | pl.col("person_group").is_in(groups.implode())
    if seen := sorted(rows.filter(known)["hospital"].unique()):
        return f"{CHAMPION} learned from {', '.join(seen)}, so it has seen most of these persons"
    return None


def questions_of(job: Job, rows: pl.DataFrame) -> pl.DataFrame:
    """The task's question about each row, in their order: columns of instructions/tasks."""
    task = job.params["task"]
    question = definition.read(dbt.PROJECT)[task].asked()
    return questions(rows.with_columns(split=pl.lit("held_out")), task, question)


def zero_shot(job: Job, rows: pl.DataFrame, splits: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Held-out fold to the champion's log-odds of yes, float64 [rows], before any calibration: the same in each."""
    asked = questions_of(job, rows)
    return dict.fromkeys(
        splits, predict_llemr.odds_of(job, CHAMPION, asked, predict_llemr.store_of(job, asked))[1]
    )


def tuned(job: Job, rows: pl.DataFrame, splits: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """The same of the champion fine-tuned on each fold's train rows, of which it says nothing (nan)."""
    return fine_tuned.odds(job, questions_of(job, rows), splits)


def calibrated(odds: np.ndarray, rows: pl.DataFrame, truth: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Probabilities of the held-out rows, float64, calibrated on the rows of tuning."""
    tuning, persons = split == "tuning", rows["person"].to_numpy()
    made = calibration.choose(odds[tuning], truth[tuning], persons[tuning])
    return made.probabilities(odds[split == "held_out"])
