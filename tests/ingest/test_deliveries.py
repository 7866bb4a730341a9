"""Deliveries that append, replace and delete; hospitals that vanish."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from orchestration import catalog, hospitals
from tests.ingest.conftest import run, table
from tests.small_export import LABS, TABLES, Export

INCREMENTAL = TABLES.replace("labs: {path: labs.csv.gz}", "labs: {path: 'labs_*.csv', delivery: %s}").replace(
    "input:", "input:", 1
)


def test_appended_files_add_rows_and_need_not_be_delivered_again(tmp_path: Path, no_suites) -> None:
    export = Export(tmp_path, tables=INCREMENTAL % "append")
    del export.files["labs.csv.gz"]
    export.files["labs_1.csv"] = LABS[:21]
    assert run(export).rows["measurements"] == 20
    (export.location / "labs_1.csv").unlink()
    export.files = {k: v for k, v in export.files.items() if k != "labs_1.csv"} | {
        "labs_2.csv": [LABS[0], *LABS[21:]]
    }
    second = run(export)
    assert second.rows["measurements"] == 40 and second.conserved, second.reason
    assert run(export).status == "reused"
    assert {r.split(":")[0] for r in table(export, "measurements")["row_id"]} == {
        "labs/labs_1",
        "labs/labs_2",
    }
    files = {line["file"]: line["rows_independent"] for line in table(export, "accounting").to_dicts()}
    assert (files["labs_1.csv"], files["labs_2.csv"]) == (20, 20)


def test_upserts_replace_and_delete_by_key_and_opt_outs_remove(tmp_path: Path, no_suites) -> None:
    upsert = "upsert, key: [pid, case_no, taken], deleted: \"status = 'D'\""
    tables = INCREMENTAL % upsert + "\nopt_out: {from: opted, patient_id: who}\n"
    export = Export(
        tmp_path, tables=tables.replace("raw:", "raw:\n  opted: {path: opted.csv, optional: true}", 1)
    )
    del export.files["labs.csv.gz"]
    export.files["labs_1.csv"] = [LABS[0], *LABS[1:4]]
    first = run(export)
    assert first.rows["measurements"] == 3, first.reason
    newer = [LABS[1].replace(",90,", ",190,"), LABS[2][:-1] + "D"]
    export.files["labs_2.csv"] = [LABS[0], *newer]
    second = run(export)
    assert second.conserved and second.rows["measurements"] == 2, second.reason
    assert "190" in table(export, "measurements")["value_text"].to_list()
    export.files["opted.csv"] = ["who,why", "p1,asked"]
    third = run(export)
    assert third.conserved and third.rows["measurements"] == 1 and third.rows["visits"] == 2, third.reason
    kept = pl.read_parquet(catalog.load(export.root).files("raw/small/labs")[0])
    assert "p1" not in kept["pid"].to_list()
    again = run(export)
    assert again.status == "reused"


def test_a_hospital_that_vanishes_stops_the_run_until_it_is_retired(
    tmp_path: Path, monkeypatch, no_suites
) -> None:
    export = Export(tmp_path)
    run(export)
    accepted = catalog.load(export.root)
    monkeypatch.setattr(hospitals, "FOLDER", tmp_path / "none")
    with pytest.raises(
        catalog.CatalogError, match=r"small has accepted tables but is no longer configured.*retire small"
    ):
        hospitals.require_all(accepted)
    hospitals.retire("small", export.root)
    hospitals.require_all(catalog.load(export.root))
    assert not list(Path(export.root, "input").rglob("*.parquet"))
    with pytest.raises(catalog.CatalogError, match="no accepted tables of small"):
        hospitals.retire("small", export.root)


def test_rows_that_repeat_on_purpose_are_counted_and_no_damage(tmp_path: Path, no_suites) -> None:
    tables = TABLES.replace("people.csv, key: [pid]", "people.csv, key: [pid], repeats: expected")
    export = Export(tmp_path, tables=tables, max_rejected=0.0)
    export.files["people.csv"] += ["p1,w,1950", "p1,w,1950", "p2,m,1960"]
    outcome = run(export)
    assert (outcome.status, outcome.rejected) == ("published", {"repeats_another_row": 3}), outcome.reason
    assert len(table(export, "patients")) == 3
