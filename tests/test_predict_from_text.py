"""The job that reads records as text: its vectors are kept and shared, its faults are one line."""

from __future__ import annotations

import json
import logging
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from orchestration import catalog
from ray_jobs import predict_from_text
from ray_jobs.config import JobConfig, JobError
from ray_jobs.prediction import predictions
from ray_jobs.runtime import Job
from tests.test_prediction import enter, known
from tests.test_records import START, frame, record

PATIENTS = 30
PARAMS = {"serialiser": "weighed", "budget": 60, "instruction": "none", "grid": "small", "num_cpus": 1}
FEW = {"tasks": ["chance"], "shots": [2], "replicates": 1}


@pytest.fixture
def root(tmp_path):
    people = [
        (("north", "south")[p % 2], f"p{p}", ("train", "tuning", "held_out")[(p // 2) % 3])
        for p in range(PATIENTS)
    ]
    splits = pl.DataFrame(people, schema=["hospital", "patient_id", "split"], orient="row")
    events = (
        frame(record(1, PATIENTS))
        .drop("hospital")
        .join(splits.select("hospital", "patient_id"), on="patient_id")
    )
    labels = splits.select(
        "hospital", "patient_id", pl.lit(START + timedelta(hours=800)).alias("prediction_at")
    )
    chance = pl.Series("label", np.random.default_rng(0).integers(0, 2, PATIENTS))
    enter(tmp_path, "harmonised/events", events)
    enter(tmp_path, "splits", known(splits))
    enter(tmp_path, "labels/chance", labels.with_columns(chance))
    enter(tmp_path, "labels/never", labels.with_columns(pl.lit(0).alias("label")))
    return tmp_path


def job_of(root, run: str, **params) -> Job:
    inputs = dict.fromkeys(["harmonised/events", "splits", "labels/chance", "labels/never"], "made")
    settings = JobConfig(
        "predict_from_text", run, str(root), run * 64, inputs, ["evaluation/text"], {**PARAMS, **params}
    )
    (root / run).mkdir()
    return Job(settings, root / run, logging.getLogger("test"), None)


def test_a_form_without_fitted_state_is_a_folder_too_that_the_comparison_finds(root):
    job = job_of(root, "a", serialiser="list", few_shot=FEW, left_out=["chance"])
    predict_from_text.run(job)
    key = "evaluation/text"
    folder = root / key / catalog.load(str(root)).version(key)
    told = predictions.read([folder])
    assert dict(told["part"].value_counts().iter_rows()) == dict.fromkeys(
        ("all", "few_shot", "left_out"), PATIENTS // 3
    )
    assert set(json.loads((folder / "metrics.json").read_text())) == {"chance", "never"}


def change_the_future(root) -> None:
    """Values, texts, ends and existence of all that became known after the prediction."""
    file, late = (
        root / "harmonised/events/bucket=0/made.parquet",
        pl.col("available_at") > START + timedelta(hours=800),
    )
    events = pl.read_parquet(file)
    later = events.filter(late).with_columns(
        pl.col("value") * 7, pl.col("end_at") + timedelta(days=3), text=pl.lit("something else")
    )
    assert later.height > PATIENTS
    pl.concat([events.filter(~late), later[::2]]).write_parquet(file)


def test_a_task_is_foreseen_from_text_and_a_later_row_changes_no_text_and_so_no_vector(root):
    predict_from_text.run(job_of(root, "a"))
    entry = catalog.load(str(root)).entry("evaluation/text")
    folder = root / "evaluation/text" / entry["version"]
    told = predictions.read([folder])
    assert set(told["contestant"]) == {"text_logistic_regression"} and set(told["task"]) == {"chance"}
    assert set(told["part"]) == {"all"} and told.height == PATIENTS // 3
    counted = entry["metadata"]
    assert (
        counted["texts"] == 2 * PATIENTS
        and counted["texts_encoded"] == counted["texts_distinct"] <= 2 * PATIENTS
    )
    assert "| never |  | not fitted: the train split has one class |" in (folder / "table.md").read_text()
    assert set(json.loads((folder / "worth.json").read_text())) == {"chance", "never"}
    change_the_future(root)
    predict_from_text.run(job_of(root, "b"))
    again = catalog.load(str(root)).entry("evaluation/text")
    assert again["metadata"]["texts_encoded"] == 0
    assert predictions.read([root / "evaluation/text" / again["version"]]).equals(told)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (
            {"budget": 600},
            r"params\.budget: 600 tokens and 2 of instruction and markers, but minilm reads 512",
        ),
        ({"serialiser": "json"}, r"params\.serialiser: 'json'; write one of list, markdown, weighed"),
        ({"encoder": "/nowhere"}, r"params\.encoder: /nowhere has no config\.json"),
        (
            {"few_shot": FEW},
            r"^evaluation/text: params\.few_shot: the text of `weighed` .* leave few_shot out",
        ),
        (
            {"left_out": ["chance"]},
            r"^evaluation/text: params\.left_out: .* leave left_out out, or write serialiser",
        ),
        ({"shared_prefix": True}, r"params\.shared_prefix: needs a causal model"),
    ],
)
def test_a_mistake_is_one_line(root, params, says):
    with pytest.raises(JobError, match=says):
        predict_from_text.run(job_of(root, "a", **params))


def test_a_store_of_another_model_is_refused(root):
    (root / "mine").mkdir()
    (root / "mine" / "model.json").write_text('{"sha": "another"}')
    with pytest.raises(
        JobError, match=r"mine was written by another model .* give params\.store another folder"
    ):
        predict_from_text.run(job_of(root, "a", store=str(root / "mine")))
