"""How files are read: encodings, quotes, bad records, Parquet, remote locations; whatever the cells hold, rows add up."""

from __future__ import annotations

from pathlib import Path

import fsspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration import ingest
from tests.ingest.conftest import run, table
from tests.small_export import LABS, TABLES, Export


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
