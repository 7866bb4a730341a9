"""Ingest on small exports: no row is lost, every damage has a name and a mend, nothing of a patient's leaks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import duckdb
import fsspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration import catalog, hospitals, ingest, input_layer, mapping, raw_tables, suites
from tests.small_export import LABS, TABLES, Export

SECRET = "Quarantania"  # planted where a patient's value could leak


def table(export: Export, name: str) -> pl.DataFrame:
    return pl.concat(
        pl.read_parquet(f, hive_partitioning=False)
        for f in catalog.load(export.root).files(f"input/small/{name}")
    )


def run(export: Export) -> ingest.Outcome:
    return ingest.run(export.write(), export.root, "test")


@pytest.fixture
def no_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A house without expectations, where the gate is not what is tested."""
    monkeypatch.setattr(suites, "EXPECTATIONS", tmp_path / "none")


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Export, ingest.Outcome]:
    """One export with something of everything that is kept or rejected row by row."""
    export = Export(tmp_path_factory.mktemp("accepted"), max_rejected=0.2)
    export.files["people.csv"].append("p1,w,1950")
    export.files["cases.csv"].append("c9,p1,2024-05-05 10:00:00,2024-05-01 10:00:00,0")
    export.max_rejected = 0.3
    export.files["labs.csv.gz"] += [
        "p1,c1,2024-10-27 02:30:00,2024-10-27 04:00:00,GLU,7,mmol/L,F",
        "p9,c1,2024-08-01 12:00:00,,GLU,95,mg/dL,F",
        f"p1,c1,{SECRET},,GLU,95,mg/dL,F",
        "p1,c1,2024-08-01 12:00:00,soon,GLU,high,mg/dL,F",
        "p1,c1,2024-08-01 12:00:00,,GLU,95,mg/dL,X",
        "p1,c1,,,GLU,95,mg/dL,F",
    ]
    return export, run(export)


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


def cut(export: Export) -> None:
    whole = (export.location / "labs.csv.gz").read_bytes()
    (export.location / "labs.csv.gz").write_bytes(whole[: len(whole) // 2])


def lines(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Export], None]:
    def damage(export: Export) -> None:
        export.write_bytes(name, ("\n".join(change(export.files[name])) + "\n").encode())

    return damage


DAMAGE = {
    "truncated gzip": (cut, ["labs.csv.gz", "truncated", "deliver it again"]),
    "no gzip": (
        lambda e: (e.location / "labs.csv.gz").write_text("\n".join(LABS)),
        ["labs.csv.gz", "damaged"],
    ),
    "missing column": (
        lines("cases.csv", lambda x: [x[0].replace("went", "wenty"), *x[1:]]),
        ["cases.csv", "lacks the column went", "raw.cases", "did you mean wenty?"],
    ),
    "missing file": (
        lambda e: (e.location / "cases.csv").rename(e.location / "case.csv"),
        ["cases.csv is not there", "raw.cases.path", "did you mean case.csv?"],
    ),
    "wrong delimiter": (
        lines("cases.csv", lambda x: [line.replace(",", ";") for line in x]),
        ["cases.csv", "one column only", "set raw.cases.delimiter to ';'"],
    ),
    "no header": (lambda e: (e.location / "cases.csv").write_text(""), ["cases.csv", "not even a header"]),
    "empty table": (lines("cases.csv", lambda x: x[:1]), ["cases.csv", "no row", "raw.cases.optional: true"]),
    "open quote": (
        lines("cases.csv", lambda x: [*x[:2], f'c2,"{SECRET},2024-01-01,,', *x[2:]]),
        ["cases.csv line 3", "a quote opens and never closes"],
    ),
    "half the rows broken": (
        lines("labs.csv.gz", lambda x: [line + f",{SECRET}" if n % 2 else line for n, line in enumerate(x)]),
        ["labs.csv.gz", "20 of 40 rows are rejected as wrong_number_of_fields", "max_rejected"],
    ),
    "times in another format": (
        lines("labs.csv.gz", lambda x: [line.replace("2024-08-0", "08/2024-0") for line in x]),
        ["labs.csv.gz", "rejected as unreadable", "date format"],
    ),
    "times in the wrong order": (
        lines(
            "cases.csv",
            lambda x: [x[0], *(f"c{n},p{n},2024-03-02 10:00:00,2024-03-01 10:00:00,0" for n in (1, 2, 3))],
        ),
        ["cases.csv", "ends_before_it_starts", "timezone"],
    ),
    "duplicate keys": (
        lines("cases.csv", lambda x: [*x, x[1], x[1]]),
        ["cases.csv", "rejected as duplicate_key", "correct the key"],
    ),
    "a look-up that finds several": (
        lambda e: (e.folder / "tables.yaml").write_text(
            TABLES.replace("cases.case_no = labs.case_no", "cases.died = '0'")
        ),
        ["input.measurements[0].join (cases)", "one row at most"],
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_and_nothing_is_published(tmp_path: Path, name: str, caplog, capfd) -> None:
    export = Export(tmp_path)
    config = export.write()
    damage, expected = DAMAGE[name]
    damage(export)
    caplog.set_level(logging.DEBUG)
    outcome = ingest.run(config, export.root, "test")
    assert outcome.status == "left_out"
    assert "\n" not in outcome.reason and all(part in outcome.reason for part in expected), outcome.reason
    now = catalog.load(export.root)
    assert now.accepted == {} and now.held_back["small"]["reason"] == outcome.reason
    assert list(Path(export.root).rglob("*.parquet")) == []
    assert SECRET not in outcome.reason + caplog.text + "".join(capfd.readouterr())


def test_the_location_itself_may_be_missing(tmp_path: Path) -> None:
    export = Export(tmp_path)
    config = export.write().model_copy(update={"location": str(tmp_path / "exprot")})
    outcome = ingest.run(config, export.root, "test")
    assert outcome.status == "left_out" and "exprot is not there" in outcome.reason


def test_an_accepted_version_stays_when_the_next_export_is_refused(tmp_path: Path) -> None:
    export = Export(tmp_path)
    before = run(export)
    export.files["people.csv"] = ["pid,sex,born", *(f"p{n},?,2950" for n in (1, 2, 3))]
    refused = run(export)
    assert refused.status == "held_back" and refused.version == before.version and refused.rows == before.rows
    assert "birth years are years of people (3 of 3 rows)" in refused.reason and "2950" not in refused.reason
    now = catalog.load(export.root)
    assert now.version("input/small/visits") == before.version and "small" in now.held_back
    page = Path(export.root, "docs/data_docs/input/small/patients.html").read_text()
    assert "patients_are_usable fails" in page and "2950" not in page
    export.files["people.csv"] = ["pid,sex,born", "p1,w,1950", "p2,m,1960", "p3,,"]
    assert run(export).status == "reused" and "small" not in catalog.load(export.root).held_back


def test_bad_records_are_rejected_one_by_one(tmp_path: Path, no_suites) -> None:
    export = Export(tmp_path)
    config = export.write()
    good = [line.encode() for line in LABS]
    bad = [b"p1,c1,2024-08-01 12:00:00", "p1,c1,2024-08-01 12:00:00,,GLU,caf\u00e9,mg/dL,F".encode("latin-1")]
    quoted = b'p1,c1,2024-08-01 12:00:00,,GLU,"two\r\nlines, ""quoted""",mg/dL,F'
    export.write_bytes("labs.csv.gz", b"\n".join([*good, bad[0], b"", quoted, bad[1]]) + b"\n")
    outcome = ingest.run(config, export.root, "test")
    assert outcome.status == "published" and outcome.conserved, outcome.reason
    assert outcome.rejected == {"undecodable_text": 1, "wrong_number_of_fields": 1}
    rows = table(export, "rejected").select("row_number", "reason").rows()
    assert rows == [(41, "wrong_number_of_fields"), (43, "undecodable_text")]
    assert "labs:42" in table(export, "measurements")["row_id"].to_list()


def test_a_quote_amid_a_field_opens_nothing(tmp_path: Path, no_suites) -> None:
    export = Export(tmp_path)
    tubes = [f'p1,c1,2024-08-01 12:00:0{n},,GLU,5" tube,mg/dL,F' for n in (1, 2)]
    export.files["labs.csv.gz"] += tubes
    outcome = run(export)
    assert outcome.status == "published" and outcome.rows["measurements"] == 42, outcome.reason


def test_a_lost_row_holds_the_hospital_back(tmp_path: Path, no_suites, monkeypatch) -> None:
    count = raw_tables.count_records
    monkeypatch.setattr(raw_tables, "count_records", lambda file, *rest, **how: count(file, *rest, **how) + 1)
    outcome = run(Export(tmp_path))
    assert outcome.status == "left_out" and outcome.conserved is False
    assert (
        "labs.csv.gz has 41 records by the second reader, but 40 came in and 0 were rejected"
        in outcome.reason
    )


def test_an_export_is_read_from_its_location_only(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "secret.csv").write_text("a\n1\n")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with (
        ingest._connect(scratch, str(tmp_path / "here")) as connection,
        pytest.raises(duckdb.PermissionException),
    ):
        connection.execute(f"from read_csv('{tmp_path}/secret.csv')")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
def test_declared_encodings_are_read(tmp_path: Path, encoding: str, no_suites) -> None:
    export = Export(
        tmp_path, tables=TABLES.replace("{path: labs.csv.gz}", f"{{path: labs.csv.gz, encoding: {encoding}}}")
    )
    config = export.write()
    text = "\n".join([*LABS, "p1,c1,2024-08-01 12:00:00,,GLU,caf\u00e9,mg/dL,F"]) + "\n"
    export.write_bytes("labs.csv.gz", text.encode(encoding))
    outcome = ingest.run(config, export.root, "test")
    assert outcome.status == "published", outcome.reason
    assert "caf\u00e9" in table(export, "measurements")["value_text"].to_list()


def test_parquet_and_remote_locations_are_read_too(tmp_path: Path, no_suites) -> None:
    export = Export(tmp_path, tables=TABLES.replace("labs.csv.gz", "labs.parquet"))
    config = export.write()
    (export.location / "labs.csv.gz").unlink()
    frame = pl.DataFrame([line.split(",") for line in LABS[1:]], schema=LABS[0].split(","), orient="row")
    frame.with_columns(pl.col("taken").str.to_datetime()).write_parquet(export.location / "labs.parquet")
    fs = fsspec.filesystem("memory")
    fs.put(str(export.location), "/hospital", recursive=True)
    outcome = ingest.run(config.model_copy(update={"location": "memory://hospital"}), export.root, "test")
    assert outcome.status == "published" and outcome.rows["measurements"] == 40, outcome.reason


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


def test_nothing_of_a_patient_is_in_the_catalog_or_the_docs(accepted) -> None:
    export, outcome = accepted
    said = json.dumps(catalog.load(export.root).content) + repr(outcome) + outcome.line()
    pages = [p.read_text() for p in Path(export.root, "docs").rglob("*.html")]
    assert len(pages) == 12
    assert not any(secret in text for text in [said, *pages] for secret in (SECRET, "p9", "caf\u00e9"))


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=6)
RECORDS = st.lists(st.lists(CELL, min_size=1, max_size=9), min_size=1, max_size=25)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(records=RECORDS, quote=st.booleans(), end=st.sampled_from(["\n", "\r\n"]))
def test_whatever_the_cells_hold_rows_in_and_rejected_add_up(
    tmp_path_factory, no_suites, records, quote, end
) -> None:
    """Conservation over any text: quotes, separators, line ends inside quotes, too few and too many fields."""
    import csv
    import io

    export = Export(tmp_path_factory.mktemp("any"), max_rejected=1.0)
    config = export.write()
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL if quote else csv.QUOTE_MINIMAL, lineterminator=end)
    writer.writerow(LABS[0].split(","))
    writer.writerows([*records, LABS[1].split(",")])
    export.write_bytes("labs.csv.gz", text.getvalue().encode())
    outcome = ingest.run(config, export.root, "test")
    assert outcome.status == "published", outcome.reason
    counted = next(line for line in table(export, "accounting").to_dicts() if line["file"] == "labs.csv.gz")
    assert counted["rows_in"] + counted["rows_rejected"] == len(records) + 1


def test_a_hospital_without_any_decision_is_taken_in(tmp_path: Path, no_suites) -> None:
    header = "source_table,code,label,concept,decision,reason,unit,mapped_by,note\n"
    export = Export(tmp_path, items=header)
    assert run(export).status == "published"
    assert table(export, "items")["decision"].null_count() == table(export, "items").height


def test_rows_that_repeat_on_purpose_are_counted_and_no_damage(tmp_path: Path, no_suites) -> None:
    tables = TABLES.replace("people.csv, key: [pid]", "people.csv, key: [pid], repeats: expected")
    export = Export(tmp_path, tables=tables, max_rejected=0.0)
    export.files["people.csv"] += ["p1,w,1950", "p1,w,1950", "p2,m,1960"]
    outcome = run(export)
    assert (outcome.status, outcome.rejected) == ("published", {"repeats_another_row": 3}), outcome.reason
    assert len(table(export, "patients")) == 3
