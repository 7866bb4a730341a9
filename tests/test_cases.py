"""Every folder of tests/cases/ is an example and a test: input rows as CSV, expected rows as CSV, the real warehouse between.

`input/<hospital>/<table>.csv` holds rows of the input layer; `expected/<room>/<table>.csv` the rows of a published table,
with the columns that count, in any order. An empty cell is null.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from orchestration import harmonise
from tests.small_input import accept, rows

CASES = sorted(path.parent for path in (Path(__file__).parent / "cases").glob("*/input"))


def read(path: Path) -> list[dict[str, str | None]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(file)]


def plain(value: object) -> object:
    """A cell as text, a number as a number, so that 90 equals 90.0 and a timestamp equals its text."""
    if value is None:
        return None
    try:
        return round(float(str(value)), 6)
    except ValueError:
        return str(value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path, tmp_path: Path):
    hospitals = sorted(folder.name for folder in (case / "input").iterdir())
    for hospital in hospitals:
        tables = {path.stem: read(path) for path in (case / "input" / hospital).glob("*.csv")}
        accept(str(tmp_path), hospital, tables)
    outcome = harmonise.harmonise(str(tmp_path), "case", hospitals, "500MB")
    assert not outcome.failed_tests, [test.name for test in outcome.failed_tests]
    for path in sorted((case / "expected").rglob("*.csv")):
        expected = read(path)
        key = path.relative_to(case / "expected").with_suffix("").as_posix()
        names = list(expected[0])
        found = [{name: plain(row[name]) for name in names} for row in rows(str(tmp_path), key)]
        wanted = [{name: plain(row[name]) for name in names} for row in expected]
        assert sorted(found, key=str) == sorted(wanted, key=str), key
