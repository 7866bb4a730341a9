"""Counts as features, baselines on them, and the job that evaluates them: nothing from the future, above all."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.metrics import roc_auc_score

from orchestration import catalog
from ray_jobs import predict, predict_from_scores
from ray_jobs.config import JobConfig
from ray_jobs.prediction import baselines, counts, numbers, predictions
from ray_jobs.prediction.labels import drawn
from ray_jobs.prediction.scores import newest_known
from ray_jobs.runtime import Job

START = datetime(2150, 1, 1)
SCHEMA = {
    "hospital": pl.String, "patient_id": pl.String, "visit_id": pl.String, "event_at": pl.Datetime("us"),
    "end_at": pl.Datetime("us"), "available_at": pl.Datetime("us"), "kind": pl.String, "code": pl.String,
    "code_system": pl.String, "concept": pl.String, "value": pl.Float64, "text": pl.String, "row_id": pl.String,
}  # fmt: skip


def event(hours: float, kind: str, patient: str = "p0", **more: object) -> dict:
    at = START + timedelta(hours=hours)
    row = {"hospital": "north", "patient_id": patient, "event_at": at, "available_at": at, "kind": kind}
    return {**dict.fromkeys(SCHEMA), **row, "text": f"{kind} of {more.get('concept')}", **more}


def timeline(seed: int, patients: int = 12) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for p in range(patients):
        rows.append(event(0, "admission", f"p{p}", value=60.0 + p, text="admission: urgent, female"))
        for _ in range(40):
            hours = float(rng.integers(1, 24 * 60)) + float(rng.choice([0, 0.5]))
            kind = str(rng.choice(["lab", "diagnosis", "prescription", "infusion"]))
            coded = (
                {"code": f"I{rng.integers(10, 13)}0", "code_system": "ICD10CM"} if kind == "diagnosis" else {}
            )
            value = float(rng.normal()) if kind == "lab" else None
            rows.append(event(hours, kind, f"p{p}", concept=f"c{rng.integers(4)}", value=value, **coded))
    return [{**row, "row_id": f"r:{i}"} for i, row in enumerate(rows)]


def asked(patients: int = 12) -> pl.DataFrame:
    rows = [
        {"hospital": "north", "patient_id": f"p{p}", "prediction_at": START + timedelta(days=d)}
        for p in range(patients)
        for d in (1, 20, 45)
    ]
    people = [
        {"hospital": "north", "patient_id": f"p{p}", "split": "held_out" if p % 4 == 3 else "train"}
        for p in range(patients)
    ]
    return counts.prediction_rows(pl.DataFrame(rows), known(pl.DataFrame(people)))


def known(people: pl.DataFrame) -> pl.DataFrame:
    """Splits of patients who are each a person of their own."""
    return people.with_columns(person_group="hospital", person_id="patient_id")


def made(rows: list[dict], of: pl.DataFrame) -> counts.Counts:
    connection = duckdb.connect()
    connection.register("told", pl.DataFrame(rows, schema=SCHEMA).to_arrow())
    return counts.Counts(connection, "told", of)


def content(of: counts.Counts, fitted: counts.Fitted) -> tuple[str, bytes, bytes, bytes]:
    """The sparse table as text, and the bytes of the matrix that a model is given."""
    matrix = of.matrix(fitted)
    return (
        of.table(fitted).write_csv(),
        matrix.data.tobytes(),
        matrix.indices.tobytes(),
        matrix.indptr.tobytes(),
    )


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 50), st.sampled_from(counts.KINDS))
def test_no_row_after_a_prediction_changes_a_byte(seed, cut_days, kind):
    """Values, codes, ends and existence of all later rows change, with fitted state frozen; the table stays the same."""
    rows, cut = timeline(seed), START + timedelta(days=cut_days)
    of = asked().filter(pl.col("prediction_at") <= cut).drop("row").with_row_index("row")
    first = made(rows, of)
    fitted = first.fit(kind)
    rng = np.random.default_rng(seed + 1)
    changed = []
    for row in rows:
        if row["available_at"] > cut:
            if rng.random() < 0.3:
                continue
            later = row["available_at"] + timedelta(days=float(rng.random()))
            row = {
                **row,
                "value": 1e6,
                "code": "Z99",
                "concept": "new",
                "end_at": later,
                "available_at": later,
            }
            row |= {"text": "admission: late, female", "kind": str(rng.choice(["lab", "admission"]))}
        changed.append(row)
    changed += [{**changed[0], "available_at": cut + timedelta(seconds=1), "row_id": "r:new"}]
    assert content(first, fitted) == content(made(changed, of), fitted)


def test_what_happened_before_and_was_known_after_is_not_counted():
    late = {
        **event(1, "lab", concept="c0", value=1.0),
        "available_at": START + timedelta(hours=30),
        "row_id": "x",
    }
    of = asked(1).filter(pl.col("prediction_at") == START + timedelta(days=1))
    fitted = counts.Fitted("plain", pl.DataFrame({"name": [], "breaks": []}), ("lab/c0",))
    assert made([late], of).table(fitted).is_empty()


def test_rich_counts_by_hand():
    rows = [
        {**event(2, "diagnosis", code="I509", code_system="ICD10CM", concept="CIR019"), "row_id": "a"},
        {**event(23, "lab", concept="c0", value=5.5), "row_id": "b"},
        {**event(-24 * 40, "lab", concept="c0", value=-3.0), "row_id": "c"},
        {**event(0, "admission", value=61.0, text="admission: urgent, female"), "row_id": "d"},
    ]
    of = asked(1).filter(pl.col("prediction_at") == START + timedelta(days=1))
    breaks = pl.DataFrame({"name": ["lab/c0"], "breaks": [[float(b) for b in range(1, 10)]]})
    names = ("age", "female", "diagnosis/I509@1 day", "diagnosis/I50@1 day", "ccsr/CIR019@1 day", "lab/c0@1 day",
             "lab/c0/decile 6@1 day", "lab/c0/decile 1@older", "kind/lab@older")  # fmt: skip
    found = dict(
        made(rows, of).table(counts.Fitted("rich", breaks, names)).select("feature", "value").iter_rows()
    )
    assert found == {**dict.fromkeys(names, 1.0), "age": 61.0}


def test_fitted_state_reads_the_train_split_alone():
    rows, of = timeline(3, 60), asked(60)
    held = {f"p{p}" for p in range(60) if p % 4 == 3}
    other = [{**r, "value": 99.0, "concept": "z"} if r["patient_id"] in held else r for r in rows]
    one, two = made(rows, of).fit("rich"), made(other, of).fit("rich")
    assert one.columns == two.columns and one.breaks.equals(two.breaks)
    assert any("decile" in name for name in one.columns) and any("@older" in name for name in one.columns)


@pytest.mark.parametrize("model", baselines.MODELS)
def test_a_baseline_is_chosen_on_tuning_keeps_its_settings_and_repeats(model):
    rng = np.random.default_rng(0)
    features = csr_matrix(rng.poisson(1.0, (300, 20)).astype(np.float32))
    labels = rng.random(300) < 1 / (1 + np.exp(3 - 2 * features[:, 0].toarray().ravel()))
    splits = np.array(["train"] * 200 + ["tuning"] * 50 + ["held_out"] * 50)
    fitted, again = (baselines.fit(model, "small", features, labels, splits) for _ in range(2))
    assert fitted.probabilities.tobytes() == again.probabilities.tobytes()
    assert set(fitted.chosen) == set(baselines.GRIDS["ehrshot"][model]) and 0.5 < fitted.tuning_auroc <= 1
    assert roc_auc_score(labels[250:], fitted.probabilities) > 0.7
    swapped = np.where(splits == "held_out", ~labels, labels)
    assert (
        baselines.fit(model, "small", features, swapped, splits).probabilities.tobytes()
        == fitted.probabilities.tobytes()
    )
    with pytest.raises(ValueError, match="the train split has one class"):
        baselines.fit(model, "small", features, np.zeros(300, bool), splits)


def test_a_single_column_ranks_alike_whatever_is_chosen_so_the_log_loss_decides():
    rng = np.random.default_rng(0)
    points = rng.integers(0, 20, 600).astype(np.float32)
    labels = rng.random(600) < 1 / (1 + np.exp(5 - 0.5 * points))
    splits = np.array(["train"] * 300 + ["tuning"] * 150 + ["held_out"] * 150)
    fitted = baselines.fit("logistic regression", "ehrshot", points[:, None], labels, splits)
    assert fitted.chosen["C"] >= 1  # the first of the grid, 1e-6, says the same of everybody
    assert np.ptp(fitted.probabilities) > 0.5


def test_settings_that_are_left_out_of_the_grid_give_the_same_trees():
    rng = np.random.default_rng(0)
    features = csr_matrix(rng.poisson(1.0, (200, 8)).astype(np.float32))
    labels = rng.random(200) < 0.3
    one, other = (
        baselines._estimator("LightGBM", {"max_depth": 3, "learning_rate": 0.1, "num_leaves": leaves}, 1)
        for leaves in (10, 100)
    )
    told = [model.fit(features, labels).predict_proba(features) for model in (one, other)]
    assert told[0].tobytes() == told[1].tobytes()


def test_the_grids_are_ehrshots():
    grid = baselines.GRIDS["ehrshot"]
    assert np.prod([len(choices) for choices in grid["LightGBM"].values()]) == 27
    assert len(list(baselines.distinct(grid["LightGBM"]))) == 21
    assert grid["logistic regression"]["C"] == pytest.approx(
        [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 1e2, 1e3, 1e4, 1e5, 1e6]
    )


def enter(root: Path, key: str, frame: pl.DataFrame) -> None:
    """Publish a frame as an accepted table, without the warehouse."""
    path = f"{key}/bucket=0/made.parquet"
    (root / path).parent.mkdir(parents=True)
    frame.write_parquet(root / path)
    entry = {"version": "made", "fingerprint": key, "files": [{"path": path}], "inputs": {}, "metadata": {}}
    with catalog.edit(str(root)) as content:
        content["accepted"][key] = {**entry, "run_id": "test", "published_at": "2150-01-01T00:00:00+00:00"}


def test_the_job_says_one_class_and_few_labels_and_publishes(tmp_path):
    patients, of = 60, asked(60)
    people = known(of.select("hospital", "patient_id", "split").unique())
    told = pl.DataFrame(timeline(5, patients), schema=SCHEMA)
    labels = of.select("hospital", "patient_id", "prediction_at", pl.lit("t").alias("task"))
    chance = np.random.default_rng(0).integers(0, 2, of.height)
    enter(tmp_path, "harmonised/events", told)
    enter(tmp_path, "splits", people)
    enter(
        tmp_path,
        "labels/chance",
        labels.with_columns(pl.lit("chance").alias("task"), pl.Series("label", chance)),
    )
    never = labels.filter(pl.col("prediction_at") < START + timedelta(days=2))
    enter(tmp_path, "labels/never", never.with_columns(pl.lit(0).alias("label")))
    long = 100.0 * (pl.col("patient_id").str.slice(1).cast(pl.Int32) % 2) + pl.lit(
        pl.Series(chance[: never.height])
    )
    enter(tmp_path, "labels/hours", never.with_columns(long.alias("label")))
    inputs = dict.fromkeys(
        ["harmonised/events", "splits", "labels/chance", "labels/never", "labels/hours"], "made"
    )
    params = {"grid": "small", "threads": 1}
    config = JobConfig("predict", "run", str(tmp_path), "f" * 64, inputs, ["evaluation/baselines"], params)
    (tmp_path / "scratch").mkdir()
    predict.run(Job(config, tmp_path / "scratch", logging.getLogger("test"), None))
    folder = tmp_path / "evaluation/baselines" / ("f" * 12)
    table = (folder / "table.md").read_text()
    assert "| never | 15 (0) (n < 30) | not fitted: the train split has one class" in table
    assert table.count("| chance | 45 (") == 4 and "hours" not in table
    said = predictions.read([folder])
    assert set(said["task"]) == {"chance"} and said.height == 4 * 45 and "patient_id" not in said.columns
    assert set(said["contestant"]) == {
        predict.contestant(k, m) for k in counts.KINDS for m in baselines.MODELS
    }
    told = (folder / "rich_minus_plain_by_hospital.md").read_text()
    assert "| north | LightGBM | 1 | " in told and "| north | the better on tuning | 1 | " in told
    assert "| north | logistic regression | 1 | " in told
    told = (folder / "numbers.md").read_text()
    assert told.count("| hours | 15 | ") == 5 and "| hours | 15 | median of train | " in told
    assert predictions.read_tuning([folder]) == {}  # nobody is in the tuning split
    figures = json.loads((folder / "metrics.json").read_text())["chance"]
    assert 0 < figures["p_rich_over_plain"] <= 1 and figures["rich counts, LightGBM"]["tuning_auroc"] is None


def test_points_are_those_of_the_visit_known_by_the_prediction():
    at = [START + timedelta(hours=h) for h in range(4)]
    labelled = pl.DataFrame(
        {"hospital": "n", "visit_id": ["a", "a", "b"], "prediction_at": [at[1], at[3], at[1]]}
    )
    scores = pl.DataFrame(
        {
            "hospital": "n",
            "patient_id": "p",
            "visit_id": ["a", "a", "b"],
            "known_at": [at[0], at[2], at[2]],
            "points": [1, 5, 9],
        }
    )
    assert newest_known(scores, labelled)["points"].to_list() == [1, 5, None]


def test_a_score_is_a_contestant_whichever_way_it_points(tmp_path):
    rng = np.random.default_rng(1)
    rows = asked(200).with_columns(pl.concat_str("patient_id", "row", separator="-").alias("visit_id"))
    truth = rng.random(rows.height) < 0.4
    acuity = np.where(truth, 2, 4) + rng.integers(-1, 2, rows.height)
    labels = rows.select(
        "hospital", "patient_id", "visit_id", "prediction_at", pl.Series("label", truth.astype(int))
    )
    scores = labels.select("hospital", "patient_id", "visit_id", pl.col("prediction_at").alias("known_at"),
                           pl.lit("corrected").alias("variant"), pl.Series("triage_acuity", acuity))  # fmt: skip
    for key, frame in {
        "splits": rows.select("hospital", "patient_id", "split").unique(),
        "labels/critical": labels,
        "labels/never": labels.with_columns(label=pl.lit(0)),
        "features/triage_scores": scores,
    }.items():
        enter(tmp_path, key, frame)
    keys = ["splits", "labels/critical", "labels/never", "features/triage_scores"]
    params = {"scores": {"features/triage_scores": ["triage_acuity"]}}
    config = JobConfig(
        "predict_from_scores",
        "run",
        str(tmp_path),
        "f" * 64,
        dict.fromkeys(keys, "made"),
        ["evaluation/s"],
        params,
    )
    (tmp_path / "scratch").mkdir()
    predict_from_scores.run(Job(config, tmp_path / "scratch", logging.getLogger("test"), None))
    folder = tmp_path / "evaluation/s" / ("f" * 12)
    assert json.loads((folder / "metrics.json").read_text()) == {"predictions": 1, "passed_over": 1}
    said = pl.read_parquet(folder / "predictions/triage_acuity_corrected/critical/all.parquet")
    assert said.height == rows.filter(pl.col("split") == "held_out").height
    assert roc_auc_score(said["boolean_value"], said["predicted_boolean_probability"]) > 0.8


@pytest.mark.parametrize("model", numbers.MODELS)
def test_a_number_is_foreseen_without_its_held_out_labels_and_better_than_by_the_median(model):
    rng = np.random.default_rng(0)
    features = csr_matrix(rng.poisson(1.0, (400, 6)).astype(np.float32))
    hours = 10.0 * features[:, 0].toarray().ravel() + rng.normal(size=400)
    splits = np.array(["train"] * 250 + ["tuning"] * 50 + ["held_out"] * 100)
    told, _ = numbers.fit(model, "small", features, hours, splits)
    swapped = np.where(splits == "held_out", -hours, hours)
    assert told.tobytes() == numbers.fit(model, "small", features, swapped, splits)[0].tobytes()
    labelled = pl.DataFrame({"label": hours, "split": splits, "person": [f"p{i // 2}" for i in range(400)]})
    found = numbers.judged("rich", "small", features, labelled)
    figures = found[f"rich counts, {model}"]
    assert figures["mae"]["value"] == pytest.approx(np.abs(told - hours[300:]).mean(), abs=1e-4)
    assert figures["less_than_the_median"]["low"] > 3 and figures["mae"]["patients"] == 50
    nobody = numbers.judged("rich", "small", features[:300], labelled[:300])
    assert nobody["not_fitted"] == "the train or the held-out split is empty"


def test_of_a_prediction_an_hour_the_same_hours_of_a_visit_are_read_by_all():
    rows = [
        {
            "hospital": "north",
            "patient_id": f"p{v}",
            "visit_id": f"v{v}",
            "prediction_at": START + timedelta(hours=h),
        }
        for v in range(3)
        for h in range((4, 60, 200)[v])
    ]
    frame = pl.DataFrame(rows).with_columns(label=pl.lit(1))
    kept = drawn(frame)
    assert kept.group_by("visit_id").len().sort("visit_id")["len"].to_list() == [4, 8, 8]
    assert kept.equals(
        drawn(frame.sample(fraction=1.0, shuffle=True, seed=1)).sort("patient_id", "prediction_at")
    )
    assert drawn(kept).equals(kept)
    hours = (kept.filter(pl.col("visit_id") == "v2")["prediction_at"] - START).dt.total_hours()
    assert hours.max() > 100  # of the whole stay, not of its beginning
