"""Every folder of tests/cases/ is an example and a test: input rows as CSV, expected rows as CSV, the real warehouse between.

`input/<hospital>/<table>.csv` holds rows of the input layer; `expected/<room>/<table>.csv` the rows of a published table,
with the columns that count, in any order. An empty cell is null. `grids/<grid>.yaml` and `tasks/<task>.yaml` are sampling rates and
tasks beside those that are shipped. All cases go through the warehouse in one run, each hospital under the name of its case.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from orchestration import dbt, gem, harmonise
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


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    root, project = str(tmp_path_factory.mktemp("cases")), tmp_path_factory.mktemp("project") / "dbt_project"
    shutil.copytree(dbt.PROJECT, project)
    hospitals = []
    for case in CASES:
        for part in ("grids", "tasks"):
            for file in case.glob(f"{part}/*.yaml"):
                shutil.copy(file, project / part)
        for folder in sorted((case / "input").iterdir()):
            hospitals.append(f"{case.name}_{folder.name}")
            accept(root, hospitals[-1], {path.stem: read(path) for path in folder.glob("*.csv")})
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(gem.LOCATION, raising=False)
        outcome = harmonise.harmonise(root, "cases", hospitals, "500MB", project=project)
    assert not outcome.failed_tests, [test.name for test in outcome.failed_tests]
    return root


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path, root: str):
    for path in sorted((case / "expected").rglob("*.csv")):
        expected = read(path)
        key = path.relative_to(case / "expected").with_suffix("").as_posix()
        found = [
            row | {"hospital": row["hospital"].removeprefix(f"{case.name}_")}
            for row in rows(root, key)
            if row["hospital"].startswith(f"{case.name}_")
        ]
        names = list(expected[0])
        wanted = [{name: plain(row[name]) for name in names} for row in expected]
        found = [{name: plain(row[name]) for name in names} for row in found]
        assert sorted(found, key=str) == sorted(wanted, key=str), key


@pytest.mark.parametrize(
    ("hospital", "task", "reason", "excluded"),
    [
        ("clinic", "long_stay", "no_inpatient_stay", 2),
        ("clinic", "readmission_after_discharge_day", "no_inpatient_stay", 2),
        ("clinic", "new_hypertension", "hospital_without_icd_codes", 6),
        ("clinic", "diagnosis_groups", "hospital_without_icd_codes", 6 * 23),
        ("coded", "new_hypertension", "hospital_without_icd_codes", 0),
        ("coded", "looks_back", "horizon_before_prediction", 1),
    ],
)
def test_attrition_names_who_is_left_out(root: str, hospital: str, task: str, reason: str, excluded: int):
    found = [
        row["excluded"]
        for row in rows(root, "labels/attrition")
        if (row["hospital"], row["task"], row["reason"]) == (f"encounters_{hospital}", task, reason)
    ]
    assert found == [excluded]
