"""Language models in cross-validation: nothing of a fold's labels reaches what is foreseen of it, and who is not there is left out."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from orchestration import catalog
from ray_jobs import crossvalidate
from ray_jobs.config import JobConfig
from ray_jobs.prediction import language
from ray_jobs.runtime import Job
from tests.test_predict_from_text import PARAMS, root  # noqa: F401

INPUTS = ("harmonised/events", "splits", "labels/chance", "labels/never")


def job_of(root: Path, **params) -> Job:  # noqa: F811
    settings = {**PARAMS, "task": "chance", "folds": 3, "threads": 1, **params}
    inputs = dict.fromkeys(INPUTS, "made")
    config = JobConfig("crossvalidate", "run", str(root), "f" * 64, inputs, ["evaluation/folds"], settings)
    (root / "scratch").mkdir(exist_ok=True)
    return Job(config, root / "scratch", logging.getLogger("test"), None)


def test_the_labels_of_a_fold_do_not_reach_what_is_foreseen_of_it(root):  # noqa: F811
    job = job_of(root)
    labels, splits = (pl.read_parquet(job.files(key)) for key in ("labels/chance", "splits"))
    rows = crossvalidate.prediction_rows(labels, splits, 3)
    fold, truth = rows["fold"].to_numpy(), rows["label"].to_numpy() == 1
    name = "records as text, weighed"

    def foreseen(truth: np.ndarray) -> np.ndarray:
        told = rows.with_columns(label=pl.Series(truth.astype(np.int64)))
        return crossvalidate.contestants(job, told, truth, [name])[name]()

    one, other = foreseen(truth), foreseen(np.where(fold == 0, ~truth, truth))
    assert one[fold == 0].tobytes() == other[fold == 0].tobytes()
    assert one[fold != 0].tobytes() != other[fold != 0].tobytes()


def test_answers_are_calibrated_on_the_fold_that_plays_tuning():
    rng = np.random.default_rng(0)
    rows = pl.DataFrame({"person": [str(i) for i in range(300)]})
    odds, split = rng.normal(size=300), crossvalidate.roles(np.arange(300) % 3, 0)
    truth = rng.random(300) < 1 / (1 + np.exp(2 - odds))
    said = language.calibrated(odds, rows, truth, split)
    swapped = np.where(split == "tuning", truth, ~truth)
    assert said.tobytes() == language.calibrated(odds, rows, swapped, split).tobytes()
    assert said.mean() == pytest.approx(truth[split == "held_out"].mean(), abs=0.1) and len(said) == 100


def test_a_champion_that_does_not_stand_is_left_out_and_one_class_publishes_nothing(root):  # noqa: F811
    crossvalidate.run(job_of(root, task="never", models=["plain counts, LightGBM"]))
    assert "evaluation/folds" not in catalog.load(str(root)).accepted
    models = ["records as text, list", *crossvalidate.ASKED]
    crossvalidate.run(job_of(root, models=models))
    made = Path(catalog.load(str(root)).folder("evaluation/folds"))
    told = json.loads((made / "metrics.json").read_text())
    assert set(told["models"]) == {models[0]}
    assert told["left_out"] == dict.fromkeys(models[1:], "no weights/champion stands in the data root")
