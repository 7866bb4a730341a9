"""What ingest publishes of a small export: typed, sorted, split by person, every row accounted for, nothing of a patient's told."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from orchestration import catalog, input_layer, mapping
from tests.ingest.conftest import SECRET, run, table
from tests.small_export import LABS, Export


def test_all_ten_tables_are_published_typed_and_sorted(accepted) -> None:
    export, outcome = accepted
    assert outcome.status == "published" and outcome.conserved, outcome.reason
    types = {"VARCHAR": pl.String, "DOUBLE": pl.Float64, "INTEGER": pl.Int32, "BOOLEAN": pl.Boolean}
    for name, columns in input_layer.tables().items():
        frame = table(export, name)
        assert frame.columns == list(columns)
        for column, type_ in columns.items():
            expected = types.get(type_, pl.Datetime("us"))
            assert frame.schema[column] == expected, (name, column)
        order = input_layer.sort_columns(name)
        assert frame.equals(frame.sort(order)), name
    assert (catalog.load(export.root).rows("input/small/notes"), len(table(export, "patients"))) == (0, 3)


def test_rejected_rows_have_file_row_and_reason_but_no_value(accepted) -> None:
    export, outcome = accepted
    rejected = table(export, "rejected")
    found = {
        (f, n): (r, c) for f, n, r, c in rejected.select("file", "row_number", "reason", "columns").rows()
    }
    assert found == {
        ("people.csv", 4): ("duplicate_key", "pid"),
        ("cases.csv", 4): ("ends_before_it_starts", "event_at, end_at"),
        ("labs.csv.gz", 42): ("unknown_patient", "patient_id"),
        ("labs.csv.gz", 43): ("unreadable", "event_at"),
        ("labs.csv.gz", 45): ("cancelled", ""),
        ("labs.csv.gz", 46): ("missing", "event_at"),
    }
    assert outcome.rejected["unreadable"] == 1


def test_every_file_adds_up(accepted) -> None:
    export, _ = accepted
    lines = table(export, "accounting").to_dicts()
    assert {line["file"] for line in lines} == {"people.csv", "cases.csv", "labs.csv.gz", "dictionary.csv"}
    assert all(line["rows_independent"] == line["rows_in"] + line["rows_rejected"] for line in lines)
    assert next(line["rows_independent"] for line in lines if line["file"] == "labs.csv.gz") == 46


def test_local_time_becomes_utc_and_the_hour_that_exists_twice_is_flagged(accepted) -> None:
    export, outcome = accepted
    visits = table(export, "visits").sort("visit_id")
    assert [str(t) for t in visits["event_at"][:2]] == ["2024-03-01 09:00:00", "2024-07-01 08:00:00"]
    assert outcome.remarks["measurements"]["ambiguous_local_hour"] == 1
    assert outcome.remarks["measurements"]["unreadable_available_at"] == 1
    assert len(mapping.ambiguous_half_hours("Europe/Berlin")) > 200
    assert mapping.ambiguous_half_hours("Asia/Tokyo") == ()


def test_row_ids_lead_back_to_file_and_row(accepted) -> None:
    export, _ = accepted
    measurements = table(export, "measurements")
    for value, row_id in measurements.select("value_text", "row_id").rows():
        raw_table, number = row_id.split(":")
        assert raw_table == "labs" and export.files["labs.csv.gz"][int(number)].split(",")[5] == value


def test_items_are_the_dictionary_merged_with_the_mapping(accepted) -> None:
    export, _ = accepted
    items = {row["code"]: row for row in table(export, "items").to_dicts()}
    assert (items["GLU"]["label"], items["GLU"]["concept"], items["GLU"]["unit"]) == (
        "Glucose",
        "glucose",
        "mg/dL",
    )
    assert (items["COM"]["decision"], items["COM"]["reason"]) == ("ignore", "text_only")
    assert items["GLU"]["row_id"] == "dictionary:1" and items["COM"]["row_id"] == "small/items.csv:2"


def test_splits_and_buckets_are_by_person(accepted) -> None:
    import hashlib

    export, _ = accepted
    for row in table(export, "patients").to_dicts():
        draw = int(hashlib.md5(f"small\x1f{row['patient_id']}".encode()).hexdigest()[:8], 16) / 2**32
        assert row["split"] == ("train" if draw < 0.8 else "tuning" if draw < 0.9 else "held_out")


def test_the_same_export_is_reused_and_a_changed_one_is_not(tmp_path: Path, no_suites) -> None:
    export = Export(tmp_path)
    first, again = run(export), run(export)
    assert (first.status, again.status) == ("published", "reused") and first.version == again.version
    assert again.rows == first.rows
    export.files["labs.csv.gz"].append(LABS[1])
    changed = run(export)
    assert changed.status == "published" and changed.version != first.version


def test_nothing_of_a_patient_is_in_the_catalog_or_the_docs(accepted) -> None:
    export, outcome = accepted
    said = json.dumps(catalog.load(export.root).content) + repr(outcome) + outcome.line()
    pages = [p.read_text() for p in Path(export.root, "docs").rglob("*.html")]
    assert len(pages) == 12
    assert not any(secret in text for text in [said, *pages] for secret in (SECRET, "p9", "caf\u00e9"))


def test_a_hospital_without_any_decision_is_taken_in(tmp_path: Path, no_suites) -> None:
    header = "source_table,code,label,concept,decision,reason,unit,mapped_by,note\n"
    export = Export(tmp_path, items=header)
    assert run(export).status == "published"
    assert table(export, "items")["decision"].null_count() == table(export, "items").height
