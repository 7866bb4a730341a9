"""The champion, fine-tuned in each fold of a cross-validation: what `weights/predictor` is to a night, on the fold's train rows.

It is trained by the same job (train.py, Ray Train and DeepSpeed) in a data root of its own, which all folds share and which is
gone when the last one has answered. Where the data root is local it lies in its `training/`, under the fingerprint of the job, so
that a retry asks no fold twice and goes on from the last checkpoint of the one that was running. Parameters: `recipe` (its stage
`predictor`), `fine_tuning` (what is different from that stage here, such as `steps`), `train_per_task` as in task_questions.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from orchestration import catalog
from ray_jobs import train
from ray_jobs.config import JobError
from ray_jobs.house import EVENTS, House
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.recipe import Recipe
from ray_jobs.predict_llemr import odds_of, store_of
from ray_jobs.runtime import Job
from ray_jobs.task_questions import chosen

QUESTIONS, CHAMPION, TUNED = "instructions/tasks", "weights/champion", "weights/predictor"


def recipe_of(job: Job) -> Recipe:
    """Raises JobError naming what is missing in the recipe, or wrong in `fine_tuning`."""
    content = job.params.get("recipe")
    if not content or "predictor" not in content:
        raise JobError(
            "params.recipe with a stage predictor is missing, by which the champion is fine-tuned; give the asset "
            "`recipe: tiny` and `stages: [predictor]`, or leave the model out of params.models"
        )
    return Recipe.of(content | {"predictor": content["predictor"] | job.params.get("fine_tuning", {})})


def odds(job: Job, asked: pl.DataFrame, splits: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Held-out fold to log-odds of yes of its tuning and held-out rows, float64 [rows], nan of what it was trained on.

    asked: columns of instructions/tasks, in the order of the rows; splits: held-out fold to the role of every row.
    Raises ValueError if a fold's train rows are of one class.
    """
    most = int(job.params.get("train_per_task", asked.height))
    told = {fold: asked.with_columns(split=pl.Series(split)) for fold, split in splits.items()}
    taught = {fold: questions(of, most) for fold, of in told.items()}
    recipe, encoder, root = recipe_of(job), checkpoint.encoder_of(job.path(CHAMPION)), root_of(job)
    house = House(root, job.config.root, (EVENTS, encoder, CHAMPION), job.log)
    store, found = store_of(job, asked), {}
    for fold, split in splits.items():
        kept, part = root / f"fold-{fold}.npy", root / "part.npy"
        if not kept.exists():
            teach(house, fold, taught[fold], recipe, encoder)
            others = split != "train"
            of = np.full(asked.height, np.nan)
            of[others] = odds_of(house, TUNED, told[fold].filter(others), store)[1]
            np.save(part, of)
            part.replace(kept)
        found[fold] = np.load(kept)
    # also what runs of other inputs left that failed and were never tried again
    for left in root.parent.glob("folds-*"):
        shutil.rmtree(left)
    return found


def root_of(job: Job) -> Path:
    """The same one for a retry of this job, if the data root is local."""
    name = f"folds-{job.config.fingerprint[:12]}"
    return (
        Path(job.config.root, "training", name) if catalog.is_local(job.config.root) else job.scratch / name
    )


def questions(told: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most so many of the train rows. Raises ValueError if they are of one class."""
    taught = chosen(told.filter(pl.col("split") == "train"), most)
    if taught.is_empty():
        raise ValueError("the train rows of a fold are of one class, so there is nothing to learn")
    return taught


def teach(house: House, fold: int, taught: pl.DataFrame, recipe: Recipe, encoder: str) -> None:
    """Train the champion on these questions; the weights are the house's weights/predictor."""
    why, folder = f"fold {fold}", house.root / "questions" / str(fold)
    folder.mkdir(parents=True, exist_ok=True)
    taught.write_parquet(folder / "data.parquet")
    house.publish(QUESTIONS, folder, why)
    params = {"recipe": recipe.model_dump(), "stage": "predictor"}
    house.job(train, [TUNED], (EVENTS, QUESTIONS, encoder, CHAMPION), why, params)
