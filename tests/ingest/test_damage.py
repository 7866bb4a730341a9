"""Every damage of an export has a name and a mend, and nothing of it is published."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from orchestration import catalog, ingest, raw_tables
from tests.ingest.conftest import SECRET, run
from tests.small_export import LABS, TABLES, Export


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
