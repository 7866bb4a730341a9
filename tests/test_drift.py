"""Drift: a night whose extract is like the last one passes; one that moved is held back, and the check says what moved."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from orchestration import catalog, drift, ingest, suites
from tests.small_export import LABS, Export

ITEMS = """source_table,code,label,concept,decision,reason,unit,mapped_by,note
labs,GLU,,glucose,map,,mg/dL,test,
labs,HB,,hemoglobin,map,,g/dL,test,
"""
SECRET = "Quarantania"


def labs(nights: int = 1) -> list[str]:
    """30 days of 20 glucose and 20 hemoglobin results, one more day a night; patients p1 to p3."""
    draw = random.Random(7)
    lines = [LABS[0]]
    for day in range(29 + nights):
        for n in range(40):
            code, unit, value = (
                ("GLU", "mg/dL", draw.gauss(110, 20)) if n % 2 else ("HB", "g/dL", draw.gauss(12, 2))
            )
            at = f"2024-{8 + day // 31:02}-{1 + day % 31:02} {n // 2:02}:00:00"
            lines.append(f"p{n % 3 + 1},c{n % 3 + 1},{at},{at},{code},{value:.1f},{unit},F")
    return lines


def each(change: Callable[[list[str]], list[str]], since: str = "") -> Callable[[list[str]], list[str]]:
    """Change the fields of every result from a day on."""

    def changed(lines: list[str]) -> list[str]:
        cells = [line.split(",") for line in lines[1:]]
        return [lines[0], *(",".join(change(c) if c[2] >= since else c) for c in cells)]

    return changed


def to_mmol(cells: list[str]) -> list[str]:
    return (
        [*cells[:5], f"{float(cells[5]) / 18.0156:.2f}", "mmol/L", cells[7]] if cells[4] == "GLU" else cells
    )


def silently_to_mmol(cells: list[str]) -> list[str]:
    return [*to_mmol(cells)[:6], cells[6], cells[7]]


def anaemic(cells: list[str]) -> list[str]:
    return [*cells[:5], f"{float(cells[5]) - 1.5:.1f}", *cells[6:]] if cells[4] == "HB" else cells


DRIFTS = {
    "the unit is another": (
        each(to_mmol),
        [
            "items are written in their units",
            "glucose (labs/GLU), whole extract: mmol/L in 100.0 % of 620 rows, before in 0.0 %",
        ],
    ),
    "the unit is another and nobody says so": (
        each(silently_to_mmol),
        [
            "values lie where they lay",
            "glucose, whole extract: stability index ",
            "part 1 of 10 holds 100.0 % of 522 values",
        ],
    ),
    "half of the rows": (
        lambda lines: [line for n, line in enumerate(lines) if n % 4 < 2],
        [
            "as many rows a day as before",
            "measurements of labs, new days: 20.0 rows a day, before 40.0 (20 rows, before 1120)",
        ],
    ),
    "days are missing": (
        lambda lines: [line for line in lines if not "2024-08-10" < line.split(",")[2] < "2024-08-14"],
        [
            "no days have lost their rows",
            "measurements of labs, whole extract: 4 of 30 days have lost more than half",
        ],
    ),
    "values lie elsewhere": (
        each(anaemic),
        [
            "values lie where they lay",
            "hemoglobin, whole extract: stability index 0.",
            "of 620 values, before 10",
        ],
    ),
    "only the new day has lost its rows": (
        lambda lines: [line for n, line in enumerate(lines) if n % 3 == 0 or "2024-08-30" not in line],
        ["as many rows a day as before", "measurements of labs, new days: 16.0 rows a day, before 40.0"],
    ),
}


@pytest.fixture(scope="module", autouse=True)
def only_drift_is_judged(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("expectations")
    (folder / "input").mkdir()
    shutil.copy(suites.EXPECTATIONS / "input" / "drift.yaml", folder / "input")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suites, "EXPECTATIONS", folder)
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Export, ingest.Outcome]:
    export = Export(tmp_path_factory.mktemp("drift"), items=ITEMS)
    export.files["labs.csv.gz"] = labs()
    return export, ingest.run(export.write(), export.root, "first")


@pytest.fixture
def tonight(first, tmp_path: Path) -> Export:
    """The hospital after its first night, in a data root of the test's own."""
    export, outcome = first
    assert outcome.status == "published", outcome.reason
    shutil.copytree(export.base, tmp_path / "house")
    return Export(tmp_path / "house", items=ITEMS)


def night(export: Export, lines: list[str]) -> ingest.Outcome:
    export.files["labs.csv.gz"] = lines
    return ingest.run(export.write(), export.root, "tonight")


def test_the_first_night_has_nothing_to_compare_with_and_says_so(first) -> None:
    export, outcome = first
    assert (
        outcome.compared_with == "nothing: it is the first" and outcome.verdicts["input/small/drift"].passed
    )
    accepted = catalog.load(export.root)
    assert accepted.rows("input/small/drift") == 0
    profile = pl.read_parquet(accepted.files("input/small/profile"))
    fates = {r["part"]: r["rows"] for r in profile.filter(measure="fate", scope="whole").to_dicts()}
    assert fates == {"kept": 1200}
    assert accepted.entry("input/small/profile")["metadata"]["last_day"] == "2024-08-30"


def test_a_night_like_the_last_is_accepted(tonight: Export) -> None:
    before = catalog.load(tonight.root).version("input/small/profile")
    outcome = night(tonight, labs(2))
    assert outcome.status == "published", outcome.reason
    assert outcome.compared_with == before
    compared = pl.read_parquet(catalog.load(tonight.root).files("input/small/drift"))
    assert {"rows_per_day", "thinned_days", "unit", "fate", "values"} == set(compared["measure"])
    assert {"whole", "new"} == set(compared["scope"])


@pytest.mark.parametrize("name", DRIFTS)
def test_a_drift_is_red_says_what_moved_and_changes_nothing(tonight: Export, name: str) -> None:
    change, said = DRIFTS[name]
    before = catalog.load(tonight.root).content["accepted"]
    outcome = night(tonight, change(labs(2)))
    assert outcome.status == "held_back"
    assert all(part in outcome.reason for part in said), outcome.reason
    assert catalog.load(tonight.root).content["accepted"] == before
    page = Path(tonight.root, "docs/data_docs/input/small/drift.html").read_text()
    assert said[0] in page


def test_a_true_change_is_accepted_by_hand_and_holds_from_then_on(tonight: Export) -> None:
    changed = each(to_mmol)
    with pytest.raises(catalog.CatalogError, match="small is not held back for drift"):
        drift.accept("small", tonight.root)
    assert night(tonight, changed(labs(2))).status == "held_back"
    assert "is what the next one is compared with" in drift.accept("small", tonight.root)
    assert night(tonight, changed(labs(3))).status == "published"
    assert "small" not in catalog.load(tonight.root).held_back
    back = night(tonight, labs(4))
    assert back.status == "held_back" and "mg/dL in 100.0 %" in back.reason


def test_a_mapping_that_is_mended_is_no_drift(tonight: Export) -> None:
    tonight.items = ITEMS.replace(
        "labs,HB,,hemoglobin,map,,g/dL,test,", "labs,HB,,,ignore,not_clinical,,test,"
    )
    outcome = night(tonight, labs(2))
    assert outcome.status == "published", outcome.reason


def test_what_moved_is_said_without_a_word_of_a_patient(tonight: Export) -> None:
    def spoilt(cells: list[str]) -> list[str]:
        return [*cells[:5], SECRET, SECRET, cells[7]] if cells[4] == "GLU" else cells

    outcome = night(tonight, each(spoilt)(labs(2)))
    assert outcome.status == "held_back" and "an unknown unit in 100.0 %" in outcome.reason
    pages = "".join(p.read_text() for p in Path(tonight.root, "docs").rglob("*.html"))
    assert SECRET not in outcome.reason + repr(outcome) + pages + str(catalog.load(tonight.root).content)
