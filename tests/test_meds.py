"""MEDS out: what is written is valid by the package and by our validator, and the validator finds every planted fault."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import meds
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from orchestration import catalog, harmonise
from orchestration.meds import check, export
from tests.benchmarks import meds as benchmark
from tests.small_input import accept, rows
from tests.small_world import world

HOSPITALS = ["north", "south"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    root = str(tmp_path_factory.mktemp("data"))
    for name in HOSPITALS:
        accept(root, name, world())
    assert not harmonise.harmonise(root, "run", HOSPITALS, "500MB").failed_tests
    export.export(root, "run", HOSPITALS, "500MB", 1)
    return root


def folder(root: str, name: str) -> Path:
    return Path(catalog.load(root).folder(f"meds/{name}"))


@pytest.fixture
def copy(root, tmp_path) -> Path:
    return Path(shutil.copytree(folder(root, "all"), tmp_path / "meds"))


def test_every_table_is_valid_by_the_package(root):
    for name in [*HOSPITALS, "all"]:
        place = folder(root, name)
        for file in (place / "data").rglob("*.parquet"):
            meds.DataSchema.validate(pq.read_table(file))
        for file in (place / "labels").rglob("*.parquet"):
            meds.LabelSchema.validate(pq.read_table(file))
        meds.CodeMetadataSchema.validate(pq.read_table(place / meds.code_metadata_filepath))
        meds.SubjectSplitSchema.validate(pq.read_table(place / meds.subject_splits_filepath))
        meds.DatasetMetadataSchema.validate(json.loads((place / meds.dataset_metadata_filepath).read_text()))


def test_no_event_is_lost_and_each_is_told_when_it_was_known(root):
    events = rows(root, "harmonised/events")
    tables = [pq.read_table(file) for file in sorted((folder(root, "all") / "data").rglob("*.parquet"))]
    everything = pa.concat_tables(tables).to_pylist()
    beside = ("MEDS_BIRTH", "SEX//", "RACE//", "MEDS_DEATH")
    told = [row for row in everything if not row["code"].startswith(beside)]
    assert len(told) == len(events)
    assert sorted(row["time"] for row in told) == sorted(row["available_at"] for row in events)
    assert sorted(row["event_at"] for row in told) == sorted(row["event_at"] for row in events)
    assert {row["code"] for row in everything if row["time"] is None} == {"SEX//F"}


def test_labels_are_those_of_the_warehouse(root):
    for task in ("length_of_stay", "readmission_30d"):
        files = sorted((folder(root, "all") / "labels" / task).glob("*.parquet"))
        told = [row for file in files for row in pq.read_table(file).to_pylist()]
        wanted = [(r["prediction_at"], bool(r["label"])) for r in rows(root, f"labels/{task}")]
        assert sorted((r["prediction_time"], r["boolean_value"]) for r in told) == sorted(wanted)


def test_shards_are_by_split(root):
    split = {
        r["subject_id"]: r["split"]
        for r in pq.read_table(folder(root, "all") / meds.subject_splits_filepath).to_pylist()
    }
    for file in (folder(root, "all") / "data").rglob("*.parquet"):
        assert {split[s] for s in pq.read_table(file)["subject_id"].to_pylist()} == {file.parent.name}


def test_the_same_gives_the_same_bytes_and_nothing_new_is_not_done(root, tmp_path):
    again = export.export(root, "again", HOSPITALS, "500MB", 1)
    assert all(counts["reused"] for counts in again.values())
    with catalog.edit(root) as content:
        before = {f["path"]: f["sha256"] for f in content["accepted"]["meds/all"]["files"]}
        content["accepted"]["meds/all"]["fingerprint"] = "forgotten"
    export.export(root, "again", HOSPITALS, "500MB", 1)
    entry = catalog.load(root).entry("meds/all")
    assert {f["path"]: f["sha256"] for f in entry["files"]} == before


def shard(place: Path) -> Path:
    return max((place / "data").rglob("*.parquet"), key=lambda file: file.stat().st_size)


def rewrite(file: Path, change) -> None:
    pq.write_table(change(pq.read_table(file)), file)


def _later(table: pa.Table) -> pa.Table:
    times = [t + timedelta(days=900) for t in table["prediction_time"].to_pylist()]
    return table.set_column(1, "prediction_time", pa.array(times, pa.timestamp("us")))


def _moved(place: Path) -> None:
    """One row of a subject goes to the end of the file: no longer contiguous."""
    rewrite(shard(place), lambda t: pa.concat_tables([t.slice(1), t.slice(0, 1)]))


def _twice(place: Path) -> None:
    pq.write_table(pq.read_table(shard(place)).slice(0, 1), place / "data" / "more.parquet")


def _zone(table: pa.Table) -> pa.Table:
    return table.set_column(1, "time", table["time"].cast(pa.timestamp("us", "UTC")))


def _labels_file(place: Path) -> Path:
    return next(
        f for f in sorted((place / "labels/length_of_stay").glob("*.parquet")) if pq.read_table(f).num_rows
    )


FAULTS = {
    "unsorted": (lambda p: rewrite(shard(p), lambda t: t.take(list(range(t.num_rows))[::-1])), "sort by subject_id"),
    "torn": (_moved, "not contiguous; sort"),
    "two files": (_twice, "in more than one file; shard by subject"),
    "zone": (lambda p: rewrite(shard(p), _zone), "time carries the zone UTC; write naive"),
    "column missing": (lambda p: rewrite(shard(p), lambda t: t.drop_columns("code")), "not a DataSchema table"),
    "wrong type": (
        lambda p: rewrite(shard(p), lambda t: t.set_column(0, "subject_id", t["subject_id"].cast(pa.string()))),
        "not a DataSchema table",
    ),
    "null subject": (
        lambda p: rewrite(
            shard(p), lambda t: t.set_column(0, "subject_id", pa.nulls(t.num_rows, pa.int64()))
        ),
        "subject_id is null",
    ),
    "no parquet": (lambda p: shard(p).write_text("no"), "is no Parquet file; write it again"),
    "code not listed": (
        lambda p: rewrite(p / meds.code_metadata_filepath, lambda t: t.slice(3)),
        "3 codes of data/ are not listed; add a row for each",
    ),
    "no codes": (lambda p: (p / meds.code_metadata_filepath).unlink(), "codes.parquet: is missing; list every code"),
    "no split": (
        lambda p: rewrite(p / meds.subject_splits_filepath, lambda t: t.slice(2)),
        "2 subjects of data/ have no split; add a row",
    ),
    "split twice": (
        lambda p: rewrite(p / meds.subject_splits_filepath, lambda t: pa.concat_tables([t, t.slice(0, 1)])),
        "1 subjects are listed more than once",
    ),
    "label past the record": (lambda p: rewrite(_labels_file(p), _later), "later than the day of their subject's last"),
    "label of a stranger": (
        lambda p: rewrite(
            _labels_file(p), lambda t: t.set_column(0, "subject_id", pc.add(t["subject_id"], pa.scalar(1)))
        ),
        "belong to no subject of data/; drop",
    ),
    "label column too many": (
        lambda p: rewrite(_labels_file(p), lambda t: t.append_column("task", pa.nulls(t.num_rows, pa.string()))),
        "not a LabelSchema table",
    ),
    "dataset.json": (
        lambda p: (p / meds.dataset_metadata_filepath).write_text('{"dataset_name": 3}'),
        "dataset.json: is not what DatasetMetadataSchema asks for",
    ),
    "no data": (lambda p: shutil.rmtree(p / "data"), "holds no Parquet file"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_one_line_that_names_file_and_mend(copy, capsys, fault):
    plant, said = FAULTS[fault]
    assert check.main([str(copy)]) == 0
    plant(copy)
    assert check.main([str(copy)]) == 1
    line = next(line for line in capsys.readouterr().err.splitlines() if said in line)
    assert line.split(":")[0].endswith((".parquet", ".json", "data"))


def test_small_batches_judge_as_large_ones(tmp_path):
    """A subject that goes on over row groups stays one subject; a step back between two batches is seen."""
    place = tmp_path / "meds"
    (place / "data").mkdir(parents=True)
    at = [datetime(2150, 1, 1) + timedelta(hours=h) for h in range(200_000)]
    table = pa.table(
        {
            "subject_id": [1] * 100_000 + [2] * 100_000,
            "time": pa.array(at, pa.timestamp("us")),
            "code": ["x"] * 200_000,
        }
    )
    for name, times in (("sorted", at), ("step", [at[9]] * 65_536 + at[: 200_000 - 65_536])):
        table = table.set_column(1, "time", pa.array(times, pa.timestamp("us")))
        pq.write_table(table, place / "data" / "0.parquet")
        faults = [f for f in check.check(place).faults if f.startswith("data")]
        assert len(faults) == (name == "step"), faults


def test_the_benchmark_says_its_ratio():
    figures = benchmark.measure(20_000, "500MB", 1)
    assert figures["events"] == 20_000 and figures["ratio_vs_bare_sort"] > 0
