"""A night computes the buckets that have changed, and ends in the bytes of a run from nothing. On a part of the dbt project,
its own models of measurements, diagnoses and one task, so that a night is short."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration import catalog, harmonise
from tests import small_project
from tests.small_input import accept
from tests.test_warehouse_runs import world


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
