"""Nights are incremental: however deliveries come, late, corrected or deleted, the end is that of a run from nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from orchestration import catalog, ingest, suites
from tests.small_export import LABS, TABLES, Export

KEY = "upsert, key: [pid, case_no, taken], deleted: \"status = 'D'\""
DELIVERIES = {"append": "append", "upsert": KEY, "full": "full"}


@pytest.fixture(autouse=True)
def no_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "EXPECTATIONS", tmp_path / "none")


def export_of(base: Path, delivery: str) -> Export:
    base.mkdir()
    raw = f"labs: {{path: 'labs_*.csv', delivery: {DELIVERIES[delivery]}}}"
    export = Export(base, tables=TABLES.replace("labs: {path: labs.csv.gz}", raw), max_rejected=0.5)
    del export.files["labs.csv.gz"]
    return export


def deliveries(draw: random.Random, count: int = 4) -> dict[str, list[str]]:
    """Files of results; later ones correct, delete, bring back and repeat what earlier ones said, and some rows are broken."""
    files = {}
    for number in range(count):
        lines = []
        for _ in range(draw.randrange(1, 9)):
            cells = draw.choice(LABS[1:13]).split(",")
            cells[5], cells[7] = str(draw.randrange(60, 300)), draw.choice("FFFD")
            lines.append(",".join(cells) + (",too many" if draw.random() < 0.1 else ""))
        files[f"labs_{number}.csv"] = [LABS[0], *lines]
    return files


def run(export: Export, buckets: int = 3) -> ingest.Outcome:
    config = export.write().model_copy(update={"buckets": buckets})
    outcome = ingest.run(config, export.root, "test")
    assert outcome.conserved, outcome.reason
    return outcome


def contents(root: str) -> dict[str, list[str]]:
    """sha256 of the published files of every table, by bucket."""
    accepted = catalog.load(root)
    return {
        f"{key} {Path(record['path']).parent.name}": record["sha256"]
        for key, entry in accepted.accepted.items()
        if key.startswith("input/")
        for record in entry["files"]
    }


@pytest.mark.parametrize("delivery", ["append", "upsert"])
@pytest.mark.parametrize("seed", range(4))
def test_files_in_any_order_and_any_grouping_end_in_the_same_bytes(
    tmp_path: Path, delivery: str, seed: int
) -> None:
    draw = random.Random(seed)
    files = deliveries(draw)
    at_once = export_of(tmp_path / "at_once", delivery)
    at_once.files |= files
    run(at_once)
    nightly = export_of(tmp_path / "nightly", delivery)
    order = draw.sample(sorted(files), len(files))  # a file that comes late has a name that lies before
    while order:
        tonight = [order.pop() for _ in range(min(len(order), draw.randrange(1, 3)))]
        for old in nightly.location.glob("labs_*.csv") if nightly.location.exists() else []:
            old.unlink()  # what was delivered need not be delivered again
        nightly.files = {k: v for k, v in nightly.files.items() if not k.startswith("labs_")}
        nightly.files |= {name: files[name] for name in tonight}
        run(nightly)
    assert contents(nightly.root) == contents(at_once.root)


@pytest.mark.parametrize("delivery", ["full", "upsert"])
def test_a_night_leaves_the_files_of_untouched_buckets_where_they_are(tmp_path: Path, delivery: str) -> None:
    export = export_of(tmp_path / "hospital", delivery)
    export.files["labs_1.csv"] = LABS[:13]
    run(export)
    before = {f["path"] for f in catalog.load(export.root).entry("input/small/measurements")["files"]}
    assert len(before) > 1, "the three patients lie in one bucket"
    corrected = LABS[1].replace(",90,", ",190,")
    if delivery == "full":
        export.files["labs_1.csv"] = [LABS[0], corrected, *LABS[2:13]]
    else:
        export.files["labs_2.csv"] = [LABS[0], corrected]
    run(export)
    after = {f["path"] for f in catalog.load(export.root).entry("input/small/measurements")["files"]}
    assert len(before & after) == len(before) - 1
    patients = catalog.load(export.root).entry("input/small/patients")["files"]
    assert all(Path(export.root, f["path"]).exists() for f in patients)


def test_what_was_deleted_stays_deleted_and_leaves_only_a_hash(tmp_path: Path) -> None:
    export = export_of(tmp_path / "hospital", "upsert")
    export.files["labs_2.csv"] = [LABS[0], LABS[1][:-1] + "D", LABS[2]]
    assert run(export).rows["measurements"] == 1
    export.files["labs_1.csv"] = [LABS[0], LABS[1]]  # delivered late
    assert run(export).rows["measurements"] == 1
    import polars as pl

    kept = pl.read_parquet(catalog.load(export.root).files("raw/small/labs"))
    gone = kept.filter(pl.col("__deleted").is_not_null())
    assert gone.height == 1 and gone["pid"].null_count() == 1 and gone["result"].null_count() == 1
