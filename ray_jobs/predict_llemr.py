"""Job: Llemr foresees every yes/no task, as a contestant beside the baselines.

The probability is that of yes against no at the first position of the answer, about the events of the visit that were known at the
prediction time, calibrated on the tuning split task by task (prediction/calibration.py). `llemr_zero_shot` is the champion as it
stands, `llemr_fine_tuned` is weights/predictor on the tasks that it was trained on; one that is no input is left out. Writes predictions in the form of
prediction/predictions.py, metrics.json and a table.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import numpy as np
import polars as pl

from orchestration import catalog
from ray_jobs.config import JobError
from ray_jobs.house import House
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.answer import Answerer
from ray_jobs.llemr.data import EVENT_COLUMNS, EventStore, dictionary, read_frames, text_vectors
from ray_jobs.prediction import calibration, predictions
from ray_jobs.prediction.labels import people, read
from ray_jobs.runtime import Job, Markdown, main
from ray_jobs.statistics import PatientBootstrap, bounded, classify, shown

KEY = "evaluation/llemr"
CONTESTANTS = {"llemr_zero_shot": "weights/champion", "llemr_fine_tuned": "weights/predictor"}
CONCEPTS = str(catalog.REPOSITORY / "dbt_project" / "seeds" / "concepts.csv")
FEWEST = 30  # held-out labels below which a figure is marked


def run(job: Job) -> None:
    """Raises JobError if nobody of the held-out split has a label."""
    started = time.monotonic()
    table = read_frames(job.files("instructions/tasks"))
    trained = set(table.filter(pl.col("split") == "train")["task"])
    asked = table.filter(pl.col("split") != "train").join(
        people(read(job, "splits")).drop("split"), on=["hospital", "patient_id"], maintain_order="left"
    )
    if asked.filter(pl.col("split") == "held_out").is_empty():
        raise JobError("instructions/tasks has no question of the held-out split; more patients are needed")
    store, results = store_of(job, asked), {}
    for name, key in CONTESTANTS.items():
        if key not in job.config.inputs:
            continue
        mine = asked.filter(pl.col("task").is_in(sorted(trained))) if key == "weights/predictor" else asked
        if mine.is_empty():
            continue
        model, odds = odds_of(job, key, mine, store)
        said = mine.with_columns(pl.Series("odds", odds))
        for (task,), of_task in said.partition_by("task", as_dict=True, maintain_order=True).items():
            found = foreseen(job, name, task, of_task)
            unknown = unknown_words(model, of_task["question"][0])
            results.setdefault(task, {})[name] = {**found, "unknown_words": unknown}
        job.log.info(
            "%s: %d questions, %.0f s since the start", name, mine.height, time.monotonic() - started
        )
    content = json.dumps(results, indent=1, sort_keys=True)
    (job.output(KEY) / "metrics.json").write_text(content, encoding="utf-8")
    seconds = round(time.monotonic() - started, 1)
    shown = {"tasks": len(results), "trained_tasks": len(trained), "questions": asked.height}
    job.publish({KEY: {**shown, "seconds": seconds, "table": Markdown(table_of(results))}})


def store_of(job: Job, asked: pl.DataFrame) -> EventStore:
    """The events of the visits that are asked about (hospital, visit_id)."""
    visits = asked.select("hospital", "visit_id").unique()
    events = read_frames(job.files("harmonised/events"), EVENT_COLUMNS)
    return EventStore.of(events.join(visits, on=["hospital", "visit_id"], how="semi"), dictionary(CONCEPTS))


def odds_of(
    job: Job | House, key: str, asked: pl.DataFrame, store: EventStore
) -> tuple[Answerer, np.ndarray]:
    """The model of the weights `key`, and its log-odds of yes to each question, float64 [n], before any calibration."""
    model = checkpoint.load(job.path(key))
    encoder = job.path(checkpoint.encoder_of(job.path(key)))
    vectors = text_vectors(str(encoder), model.weights.features.texts_of(store))
    return model, model.odds(asked, store, vectors)


def foreseen(job: Job, name: str, task: str, said: pl.DataFrame) -> dict[str, object]:
    """Calibrate on tuning, write what is foreseen for held_out; returns figures with intervals, and the calibration, or
    why there are none.

    said: columns of instructions/tasks, `person` and `odds`.
    """
    tuning, held = (said.filter(pl.col("split") == split) for split in ("tuning", "held_out"))
    if held.is_empty():
        return {"labels": 0, "positives": 0, "not_foreseen": "no held-out label"}
    truth = (tuning["answer"] == "yes").to_numpy()
    made = calibration.choose(tuning["odds"].to_numpy(), truth, tuning["person"].to_numpy())
    chances = made.probabilities(held["odds"].to_numpy())
    labels = held.with_columns(prediction_at="cutoff_at", label=(pl.col("answer") == "yes").cast(pl.Int32))
    told = predictions.told(labels, chances)
    predictions.write(job.output(KEY), name, task, "all", told)
    figures, _ = classify(
        PatientBootstrap(held["person"].to_numpy()), labels["label"].to_numpy() == 1, chances
    )
    return {
        "labels": held.height,
        "positives": int(labels["label"].sum()),
        "calibration": {
            "kind": made.kind,
            "slope": round(made.slope, 4),
            "intercept": round(made.intercept, 4),
            "tuning_labels": tuning.height,
            "tuning_positives": int(truth.sum()),
        },
        **{figure: interval.as_dict() for figure, interval in figures.items()},
    }


def unknown_words(model, question: str) -> int:
    """Words of the question that the model's vocabulary lacks; of a model that spells all words, 0."""
    tokenizer = model.weights.tokenizer
    ids = tokenizer(question, add_special_tokens=False)["input_ids"]
    return 0 if tokenizer.unk_token_id is None else ids.count(tokenizer.unk_token_id)


def table_of(results: Mapping[str, Mapping[str, Mapping]]) -> str:
    """Markdown: one line a task and contestant on the held-out split, with 95 % intervals of the patient bootstrap."""
    lines = [
        "| task | n (positive) | contestant | AUROC (95 %) | AUPRC | Brier | calibration error | calibration | unknown words |",
        "|---" * 9 + "|",
    ]
    for task, of_task in sorted(results.items()):
        for name, f in of_task.items():
            if why := f.get("not_foreseen"):
                lines.append(f"| {task} | 0 (0) | {name} | {why} ||||||")
                continue
            small = " (n < 30)" if f["labels"] < FEWEST else ""
            cells = [f"{f['labels']} ({f['positives']}){small}", name, bounded(f["auroc"])]
            cells += [shown(f[figure]) for figure in ("auprc", "brier", "calibration_error")]
            lines.append(
                f"| {task} | {' | '.join(cells)} | {f['calibration']['kind']} | {f['unknown_words']} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main(run)
