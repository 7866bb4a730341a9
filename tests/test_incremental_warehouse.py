"""A night computes the buckets that have changed, and ends in the bytes of a run from nothing. On a part of the dbt project,
its own models of measurements, diagnoses and two tasks, so that a night is short."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from orchestration import catalog, harmonise
from tests import small_project
from tests.small_input import accept
from tests.small_world import START, world


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project.write(tmp_path_factory.mktemp("project") / "dbt_project")


def corrected() -> dict[str, list[dict]]:
    """Another value of one patient of the second bucket, which holds p1 and p3."""
    tables = world(4)
    row = next(r for r in tables["measurements"] if r["patient_id"] == "p3" and r["code"] == "glu")
    row |= {"value_number": 5.5, "value_text": "5.5"}
    return tables


def night(root: Path, tables: dict[str, list[dict]], project: Path) -> harmonise.Outcome:
    accept(str(root), "north", tables, 2)
    outcome = harmonise.harmonise(str(root), "night", ["north"], "500MB", 2, project)
    assert not outcome.failed_tests, [test.name for test in outcome.failed_tests]
    return outcome


def published(root: Path) -> dict[str, list[str]]:
    """sha256 of every published file."""
    accepted = catalog.load(str(root)).accepted
    return {
        key: [f["sha256"] for f in entry["files"]]
        for key, entry in accepted.items()
        if not key.startswith("input/")
    }


@pytest.mark.night
def test_a_corrected_row_makes_its_own_bucket_again_and_taken_back_the_bytes_are_those_of_before(
    tmp_path: Path, project: Path
) -> None:
    """The first night is a run from nothing; the second corrects a row, the third takes the correction back."""
    first = night(tmp_path, world(4), project)
    assert (first.made, first.unchanged) == ((0, 1), ())
    files, bytes_ = catalog.load(str(tmp_path)).accepted, published(tmp_path)
    second = night(tmp_path, corrected(), project)
    assert (second.made, second.unchanged) == ((1,), (0,))
    after = catalog.load(str(tmp_path)).accepted
    for key in ("harmonised/measurements", "splits"):
        assert files[key]["files"][0] == after[key]["files"][0], "the file of bucket 0 stays where it is"
        assert (tmp_path / after[key]["files"][0]["path"]).exists()
    assert files["harmonised/measurements"]["files"][1] != after["harmonised/measurements"]["files"][1]
    third = night(tmp_path, world(4), project)
    assert (third.made, third.unchanged) == ((1,), (0,))
    assert published(tmp_path) == bytes_


def later(*days: int) -> dict[str, list[dict]]:
    """Another admission of a patient of the first bucket, so many days after all others: the export reaches further."""
    tables = world(4)
    for day in days:
        tables["visits"].append(
            {"patient_id": "p2", "visit_id": f"v2-{day}", "event_at": START + timedelta(days=day)}
            | {"end_at": START + timedelta(days=day + 1), "died_in_visit": False}
        )
    return tables


@pytest.mark.night
def test_a_new_latest_visit_makes_its_own_bucket_until_a_label_of_another_ends(
    tmp_path: Path, project: Path
) -> None:
    """All others left on the fourth day: whether they came back within 30 days is known once the export reaches the 34th."""
    night(tmp_path / "nightly", world(4), project)
    for days, made in (((10,), (0,)), ((10, 32), (0,)), ((10, 32, 40), (0, 1))):
        assert night(tmp_path / "nightly", later(*days), project).made == made
    night(tmp_path / "at_once", later(10, 32, 40), project)
    assert published(tmp_path / "nightly") == published(tmp_path / "at_once")
    stands, fresh = (catalog.load(str(tmp_path / name)).accepted for name in ("nightly", "at_once"))
    assert stands["splits"]["metadata"] == fresh["splits"]["metadata"]
