"""EHRSHOT's few labels and another hospital's model: golden draws, nesting, a fixed test set, and no row that must not be seen."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from ray_jobs.config import JobError
from ray_jobs.prediction import predictions, protocol


def labelled(n: int = 240, seed: int = 0) -> tuple[np.ndarray, pl.DataFrame]:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.3).astype(int)
    frame = pl.DataFrame(
        {
            "hospital": ["north", "south"] * (n // 2),
            "patient_id": [f"p{i}" for i in range(n)],
            "prediction_at": [datetime(2150, 1, 1) + timedelta(hours=i) for i in range(n)],
            "label": label,
            "split": rng.choice(["train", "tuning", "held_out"], n, p=[0.6, 0.2, 0.2]),
        }
    )
    return rng.normal(size=(n, 5)) + label[:, None], frame


def test_draws_are_ehrshots():
    """Run on the published code: y of six negatives and three positives, seed 0."""
    y = np.array([0] * 6 + [1] * 3, bool)
    assert protocol.draw(y, 2, 4, 0).tolist() == [5, 2, 8, 7]
    assert protocol.draw(y, 4, 4, 0).tolist() == [5, 2, 1, 3, 8, 7, 6, 7]


@pytest.mark.parametrize("seed", range(3))
def test_draws_are_nested_and_of_both_classes(seed):
    y = np.random.default_rng(seed).random(400) < 0.1
    widest = protocol.draw(y, 128, 128, seed)
    for k in protocol.SHOTS:
        mine = protocol.draw(y, k, 128, seed)
        assert (
            mine.tolist() == [*widest[:k], *widest[128 : 128 + k]]
            and y[mine].tolist() == [False] * k + [True] * k
        )
    assert protocol.draw(np.zeros(5, bool), 2, 4, 0).shape == (2,)


def test_few_shots_are_told_of_the_whole_held_out_split(tmp_path):
    features, frame = labelled()
    params = {
        "grid": "small",
        "few_shot": {"tasks": ["t"], "shots": [1, 8], "replicates": 2},
        "left_out": ["t"],
    }
    protocol.write_parts(tmp_path, "head", "t", params, "logistic regression", features, frame)
    protocol.write_parts(tmp_path, "head", "other", params, "logistic regression", features, frame)
    told = predictions.read([tmp_path])
    few, held = told.filter(pl.col("part") == "few_shot"), (frame["split"] == "held_out").sum()
    assert set(told["task"]) == {"t"} and few.height == 2 * 2 * held
    assert few.group_by("shots", "replicate").len()["len"].to_list() == [held] * 4
    one = few.filter(pl.col("shots") == 8).partition_by("replicate")
    assert not np.allclose(*(part["predicted_boolean_probability"] for part in one))
    assert told.filter(pl.col("part") == "left_out").height == held


def test_a_hospital_that_is_left_out_is_not_learned_from():
    features, frame = labelled()
    train = (frame["split"] != "held_out").to_numpy()
    north = (frame["hospital"] == "north").to_numpy()
    first = protocol.left_out("logistic regression", "small", features, frame)
    other = np.where((north & train)[:, None], 99.0, features)
    second = protocol.left_out("logistic regression", "small", other, frame)
    numbers = [
        predictions.subject_id("north", p) for p in frame.filter(pl.col("hospital") == "north")["patient_id"]
    ]
    same, differs = (first.filter(pl.col("subject_id").is_in(numbers) == k) for k in (True, False))
    assert same.equals(second.filter(pl.col("subject_id").is_in(numbers)))
    assert not differs.equals(second.filter(~pl.col("subject_id").is_in(numbers)))
    assert (
        protocol.left_out("logistic regression", "small", features[north], frame.filter(pl.Series(north)))
        is None
    )


def test_one_class_is_passed_over_and_zero_shots_are_one_line():
    features, frame = labelled()
    none = frame.with_columns(pl.lit(0).alias("label"))
    assert protocol.few_shot({}, "logistic regression", "small", features, none) is None
    assert protocol.left_out("logistic regression", "small", features, none) is None
    with pytest.raises(JobError, match=r"params\.few_shot\.shots: needs numbers of at least 1"):
        protocol.few_shot({"shots": [0]}, "logistic regression", "small", features, frame)
