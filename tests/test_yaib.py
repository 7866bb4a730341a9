"""What YAIB reads: names and types of its columns, a value in the hour in which it was known, nothing after the prediction."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration import catalog, dictionary, harmonise
from orchestration.yaib import export
from tests.small_input import accept, rows
from tests.small_world import START, world

TASK = "in_hospital_mortality"  # predicted 24 hours after admission, 22 hours into the stay of this test
NAMES = """alb alp alt ast be bicar bili bili_dir bnd bun ca cai ck ckmb cl crea crp dbp fgn fio2 glu hgb hr inr_pt k lact lymph
map mch mchc mcv methb mg na neut o2sat pco2 ph phos plt po2 ptt resp sbp temp tnt urine wbc"""
ORDER = NAMES.split()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    root = str(tmp_path_factory.mktemp("data"))
    accept(root, "north", world(patients=3))
    assert not harmonise.harmonise(root, "run", ["north"], "500MB").failed_tests
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "tasks", lambda: [TASK])
        assert not export.export(root, "run", ["north"])["yaib/north"].get("reused")
        assert export.export(root, "again", ["north"])["yaib/north"]["reused"]
    return root


def files(root: str, task: str = TASK) -> Path:
    return Path(catalog.load(root).folder("yaib/north")) / task


def test_variables_are_those_of_the_benchmark_in_its_units():
    assert export.variables() == ORDER and len(ORDER) == 48
    concepts = {c["concept"]: c["unit"] for c in dictionary.read_csv(dictionary.SEEDS / "concepts.csv")}
    for row in dictionary.read_csv(export.VARIABLES):
        assert concepts[row["concept"]] == row["unit"], row["variable"]


def test_columns_and_types(root):
    dyn = pa.schema({"stay_id": pa.int64(), "time": pa.duration("s")} | dict.fromkeys(ORDER, pa.float64()))
    for task, stays in ((TASK, 2), (export.BASE, 3)):  # one visit still runs and has no label
        assert pq.read_schema(files(root, task) / "dyn.parquet").equals(dyn)
        sta = pq.read_table(files(root, task) / "sta.parquet").to_pylist()
        assert [list(row) for row in sta] == [["stay_id", "age", "sex", "height", "weight"]] * stays
        assert {(row["age"], row["sex"]) for row in sta} == {(60.0, "Female")}
    outc = pq.read_table(files(root) / "outc.parquet")
    assert outc.schema.equals(pa.schema({"stay_id": pa.int64(), "label": pa.int64()}))
    numbers = set(outc["stay_id"].to_pylist())
    assert numbers == set(pl.read_parquet(files(root) / "dyn.parquet")["stay_id"]) and len(numbers) == 2


def test_hours_follow_one_another_as_durations_and_end_before_the_prediction(root):
    dyn = pd.read_parquet(files(root) / "dyn.parquet")
    for _, of_stay in dyn.groupby("stay_id"):
        assert list(of_stay["time"]) == [pd.Timedelta(hours=h) for h in range(22)]
    assert pl.read_parquet(files(root) / "dyn.parquet").schema["time"] == pl.Duration("ms")


@pytest.mark.parametrize("variant", ["corrected", "as_published"])
def test_a_value_stands_in_its_hour(root, tmp_path, variant):
    """Recounted in Python from the hours of measurement, at their own hour or at the one in which all of it was known."""
    begin = START + timedelta(hours=2)
    accepted = catalog.load(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "tasks", list)
        export._Hospital(accepted, "north", tmp_path, variant, "500MB", 1).write()
    place = tmp_path / "out" / "north" / export.BASE
    who = {row["stay_id"]: row["stay"] for row in pq.read_table(place / "stays.parquet").to_pylist()}
    wanted = {}
    for row in rows(root, "harmonised/measurements_hourly"):
        if row["concept"] == "glucose" and row["stay_id"] and row["hour"] >= 0:
            late = -(-(row["available_at"] - begin) // timedelta(hours=1)) - 1
            hour = row["hour"] if variant == "as_published" else max(row["hour"], late)
            place_of = (row["stay_id"], hour)
            wanted[place_of] = max(wanted.get(place_of, (-1, 0)), (row["hour"], row["value"]))
    found = {}
    for row in pq.read_table(place / "dyn.parquet").to_pylist():
        found[(who[row["stay_id"]], row["time"] // timedelta(hours=1))] = row["glu"]
    wanted = {key: value for key, (_, value) in wanted.items() if key in found}
    assert wanted and {key: value for key, value in found.items() if value is not None} == wanted
