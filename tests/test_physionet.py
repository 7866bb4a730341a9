"""The challenge of PhysioNet 2012 through the ordinary street: hospital, concepts, features, task, models, figures."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from scipy.special import expit
from scipy.stats import spearmanr

from orchestration import catalog
from ray_jobs import crossvalidate
from ray_jobs.config import JobConfig, JobError
from ray_jobs.prediction import ensemble
from ray_jobs.runtime import Job
from tests.conftest import REPOSITORY, SHARED

DATA = SHARED / "data" / "physionet-2012"
INPUTS = (
    "harmonised/events",
    "splits",
    "features/icu_stays",
    "features/icu_summary",
    "features/icu_scores",
    "labels/icu_mortality_48h",
)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the open data is not at ../shared/data")


def street(location: Path, data: Path) -> str:
    """Ingest and harmonise what lies at `location`; returns the data root."""
    environment = os.environ | {
        "WARDLINE_DATA": str(data),
        "WARDLINE_HOSPITALS": "physionet_2012",
        "PHYSIONET_2012_LOCATION": str(location),
    }
    for command in (["orchestration.ingest", "physionet_2012"], ["orchestration.harmonise"]):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return str(data)


def crossvalidated(root: str, scratch: Path, **params: object) -> tuple[dict, pl.DataFrame]:
    """The job's metrics and predictions."""
    accepted = catalog.load(root)
    inputs = {key: accepted.version(key) for key in INPUTS}
    params = {"task": "icu_mortality_48h", "threads": 1, **params}
    config = JobConfig("crossvalidate", "run", root, "f" * 64, inputs, ["evaluation/icu_mortality"], params)
    scratch.mkdir()
    crossvalidate.run(Job(config, scratch, logging.getLogger("test"), None))
    folder = Path(root, "evaluation/icu_mortality", "f" * 12)
    return json.loads((folder / "metrics.json").read_text()), pl.read_parquet(folder / "predictions.parquet")


def slice_of(records: int, folder: Path) -> dict[str, str]:
    """The first records of set a as an export of its own; returns record to outcome."""
    with gzip.open(DATA / "Outcomes-a.txt.gz", "rt") as file:
        outcomes = list(csv.DictReader(file))[:records]
    last = int(outcomes[-1]["RecordID"])
    folder.mkdir()
    with gzip.open(DATA / "set-a.csv.gz", "rt") as file, gzip.open(folder / "set-a.csv.gz", "wt") as out:
        out.write(next(file))
        out.writelines(line for line in file if int(line.split(",", 1)[0]) <= last)
    with gzip.open(folder / "Outcomes-a.txt.gz", "wt") as out:
        writer = csv.DictWriter(out, outcomes[0])
        writer.writeheader()
        writer.writerows(outcomes)
    return {row["RecordID"]: row["In-hospital_death"] for row in outcomes}


@needs_data
def test_a_slice_goes_the_whole_street(tmp_path):
    deaths = slice_of(150, tmp_path / "export")
    root = street(tmp_path / "export", tmp_path / "data")
    labels = pl.read_parquet(catalog.load(root).files("labels/icu_mortality_48h"), hive_partitioning=False)
    assert {p: str(v) for p, v in labels.select("patient_id", "label").rows()} == deaths
    models = [
        "plain counts, logistic regression",
        "summaries, logistic regression on bins",
        "summaries, LightGBM",
        "SOFA",
    ]
    found, said = crossvalidated(root, tmp_path / "scratch", models=models, seeds=1)
    assert (found["labels"], found["positives"]) == (150, sum(v == "1" for v in deaths.values()))
    assert set(found["models"]) == set(models) and set(said["fold"]) == {0, 1, 2, 3, 4}
    assert said.height == 4 * 150 and said["predicted_boolean_probability"].is_between(0, 1).all()
    # the summaries against an independent reading of the raw file
    with duckdb.connect() as connection:
        raw = f"from read_csv('{tmp_path}/export/set-a.csv.gz', all_varchar = true)"
        oracle = connection.sql(
            f"select record_id, count(*), min(v), max(v), avg(v) from (select record_id, value::double as v {raw} "
            "where parameter = 'HR' and v between 10 and 300) group by record_id order by 1"
        ).fetchall()
    summary = pl.read_parquet(catalog.load(root).files("features/icu_summary"), hive_partitioning=False)
    mine = summary.filter((pl.col("concept") == "heart_rate") & (pl.col("last_h") == 48)).sort("patient_id")
    assert mine.height == len(oracle) > 100
    for row, (record, n, low, high, mean) in zip(mine.iter_rows(named=True), oracle, strict=True):
        assert (row["patient_id"], row["n"], row["min"], row["max"]) == (record, n, low, high)
        assert row["mean"] == pytest.approx(mean)

    # SOFA of the first day against the challenge's own, which also knows the drugs that the set leaves out
    with gzip.open(DATA / "Outcomes-a.txt.gz", "rt") as file:
        published = {row["RecordID"]: int(row["SOFA"]) for row in csv.DictReader(file)}
    scores = pl.read_parquet(catalog.load(root).files("features/icu_scores"), hive_partitioning=False)
    first = [
        (row["sofa"], published[row["patient_id"]])
        for row in scores.filter(pl.col("after_h") == 24).iter_rows(named=True)
        if published[row["patient_id"]] >= 0  # -1: not known
    ]
    assert len(first) > 140 and np.mean([mine == theirs for mine, theirs in first]) > 0.6
    assert spearmanr(first).statistic > 0.9


@needs_data
@pytest.mark.night
@pytest.mark.timeout(7200)
def test_the_whole_set_is_foreseen_at_least_as_well_as_by_the_published_recipe(tmp_path):
    root = street(DATA, tmp_path / "data")
    found, _ = crossvalidated(
        root, tmp_path / "scratch", models=["summaries, LightGBM", "summaries, blend"], seeds=3
    )
    assert (found["labels"], found["positives"]) == (4000, 554)
    blend = {
        figure: found["models"]["summaries, blend"][figure]["value"]
        for figure in ("auroc", "auprc", "min_se_ppv")
    }
    assert blend["auroc"] >= 0.868 and blend["auprc"] >= 0.539 and blend["min_se_ppv"] >= 0.505


def made_up(rows: int = 400) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """A table in which the first column is dangerous at both of its ends, with holes."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(rows, 6)).astype(np.float32)
    truth = rng.random(rows) < expit(2 * np.abs(table[:, 0]) - 2.5)
    table[rng.random(table.shape) < 0.1] = np.nan
    return table, tuple(f"c{i}/mean@48 h" for i in range(6)), truth


@pytest.mark.parametrize("model", ensemble.MODELS)
def test_a_model_sees_no_truth_of_the_rows_that_it_foresees(model):
    table, columns, truth = made_up()
    split = np.array(["train"] * 200 + ["tuning"] * 100 + ["held_out"] * 100)

    def foreseen(truth: np.ndarray) -> np.ndarray:
        return ensemble.Folds(table, columns, truth, seeds=1).foreseen(model, 0, split)

    one, other = foreseen(truth), foreseen(np.where(split == "held_out", ~truth, truth))
    assert one.tobytes() == other.tobytes() and one.shape == (100,)
    better, worse = one[truth[300:]].mean(), one[~truth[300:]].mean()
    assert better > worse + 0.02
    with pytest.raises(ValueError, match="one class"):
        foreseen(np.zeros(400, bool))


def test_shares_are_chosen_on_tuning_rows_that_no_member_has_seen():
    table, columns, truth = made_up()
    split = np.array(["train"] * 200 + ["tuning"] * 100 + ["held_out"] * 100)
    swapped = np.where(split == "tuning", ~truth, truth)
    one, other = (ensemble.Folds(table, columns, t, seeds=1) for t in (truth, swapped))
    for folds in (one, other):
        folds.foreseen("blend", 0, split)
    members = ensemble.MODELS["blend"]
    for member in members:
        assert one.fitted[member, 0, False].tobytes() == other.fitted[member, 0, False].tobytes()
        assert one.fitted[member, 0, True].tobytes() != other.fitted[member, 0, True].tobytes()
    assert one.shares["blend"][0] != other.shares["blend"][0]
    assert sum(one.shares["blend"][0].values()) == pytest.approx(1)


def test_shares_go_to_who_is_right_and_are_even_among_equals():
    rng = np.random.default_rng(0)
    right = rng.normal(size=500) * 2
    truth = rng.random(500) < expit(right)
    noise = rng.normal(size=500) * 2
    assert ensemble.best_shares({"a": right, "b": noise}, truth)["a"] >= 0.7
    assert ensemble.best_shares({"a": right, "b": right}, truth) == {"a": 0.5, "b": 0.5}


def test_steps_are_between_quantiles_of_what_was_seen_and_a_hole_is_a_step():
    table = np.array([[v] for v in [*np.arange(200.0), np.nan, 1e6]], np.float32)
    seen = np.arange(202) < 200
    steps = ensemble.binned(table, seen, quantiles=(0.5,)).toarray()
    assert steps.shape == (202, 3) and (steps.sum(1) == 1).all()
    assert (
        steps[200].tolist() == [1, 0, 0] and steps[201].tolist() == [0, 0, 1] and steps[:200, 1].sum() == 100
    )


def test_folds_are_of_persons_and_stay_as_data_grows():
    people = [(f"h{i % 2}", str(i)) for i in range(500)]
    folds = [crossvalidate.fold_of(*person, 5) for person in people]
    assert folds == [crossvalidate.fold_of(*person, 5) for person in people]
    assert set(folds) == set(range(5)) and min(map(folds.count, range(5))) > 60
    role = crossvalidate.roles(np.array(folds), 4)
    assert [set(role[np.array(folds) == k]) for k in range(5)] == [
        {"tuning"},
        {"train"},
        {"train"},
        {"train"},
        {"held_out"},
    ]


def test_a_model_that_does_not_exist_is_one_line(tmp_path):
    config = JobConfig(
        "crossvalidate", "run", str(tmp_path), "f" * 64, {}, ["evaluation/x"], {"models": ["boosting"]}
    )
    job = Job(config, tmp_path, logging.getLogger("test"), None)
    rows = pl.DataFrame({"fold": [0, 1]})
    with pytest.raises(JobError, match=r"params\.models: there is no 'boosting'; write one of plain counts"):
        crossvalidate.contestants(job, rows, np.array([True, False]), ["boosting"])
