"""The warehouse at work on a small input layer: conservation, nothing from the future, reuse, edits, buckets."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from orchestration import catalog, dbt, harmonise, warehouse_run
from tests import small_input
from tests.small_input import accept
from tests.small_world import CUT, START, another_future, house, world

HOSPITALS = ["north", "house"]
GRIDS = {  # the shortest and the longest step: name to YAML
    "stays_short": "description: .\nover: icu_stays\nevery: 5 minutes\nlong: true\nconcepts: [glucose]\n",
    "visits_long": "description: .\nover: visits\nevery: 1 day\nlong: true\nconcepts: [glucose]\n",
}


def rows(root: str, key: str) -> list[dict[str, object]]:
    """The published rows of the hospital north."""
    return [row for row in small_input.rows(root, key) if row.get("hospital", "north") == "north"]


def run(
    tmp: Path, name: str, tables: dict[str, list[dict]], buckets: int = 1, beside: dict | None = None
) -> str:
    root, project = str(tmp / name / "data"), tmp / "dbt_project"
    if not project.exists():
        shutil.copytree(dbt.PROJECT, project)
        for grid, text in GRIDS.items():
            (project / "grids" / f"{grid}.yaml").write_text(text)
    accept(root, "north", tables, buckets)
    accept(root, "house", beside or house(), buckets)
    outcome = harmonise.harmonise(root, "test", HOSPITALS, "500MB", 2, project)
    assert not outcome.failed_tests, [test.name for test in outcome.failed_tests]
    return root


@pytest.fixture(scope="module")
def tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warehouse")


@pytest.fixture(scope="module")
def root(tmp: Path) -> str:
    return run(tmp, "base", world())


def test_no_row_is_lost(root):
    fates = rows(root, "harmonised/fates")
    assert sum(row["rows"] for row in fates) == len(world()["measurements"])
    assert {row["fate"] for row in fates} == {"kept", "duplicate", "ignored"}


def test_nothing_from_the_future(tmp, root):
    """Change, delete and move what was known after the cut: what was known up to it stays byte for byte."""
    other = run(tmp, "future", another_future(world()), beside=another_future(house()))
    for key, known in {
        **{
            f"features/{grid}{long}": "known_at"
            for grid in ("icu_hourly", "ward_hourly", *GRIDS)
            for long in ("", "_long")
        },
        "features/admission_summary": "cut_at",
        **{
            f"features/{at}": "known_at"
            for at in ("icu_stays", "icu_summary", "icu_scores", "triage_scores", "comorbidities")
        },
        "harmonised/events": "available_at",
        "harmonised/measurements": "available_at",
    }.items():
        past, same_past = (
            [row for row in small_input.rows(r, key) if row[known] <= CUT] for r in (root, other)
        )
        assert past and past == same_past, key
    hours = [row["hour"] for row in rows(root, "features/icu_hourly") if row["known_at"] <= CUT]
    assert max(hours) == 21


def test_buckets_make_no_difference(tmp, root):
    other = run(tmp, "buckets", world(), buckets=2)
    assert len(catalog.load(other).files("harmonised/events")) == 2
    for key in harmonise.published_models(dbt.manifest(tmp / "dbt_project")):
        summed = (
            attrition if key == "labels/attrition" else list
        )  # counted in each bucket, summed by its reader
        found, again = (summed(small_input.rows(r, key)) for r in (root, other))
        assert found == again, key


def attrition(found: list[dict]) -> dict[tuple, int]:
    total: dict[tuple, int] = {}
    for row in found:
        for count in ("excluded", "remaining", "positives"):
            key = (row["hospital"], row["task"], row["step"], row["reason"], count)
            total[key] = total.get(key, 0) + row[count]
    return total


def test_summary_reads_nothing_after_its_cut(root):
    """The culture was reported at 26 h and is not counted at 24 h; the lowest glucose is that of what had arrived."""
    for row in rows(root, "features/admission_summary"):
        assert row["n_cultures"] == 0
        known = [
            r["value"]
            for r in rows(root, "harmonised/measurements")
            if r["visit_id"] == row["visit_id"]
            and r["concept"] == "glucose"
            and r["fate"] == "kept"
            and r["available_at"] <= row["cut_at"]
        ]
        assert row["glucose_mg_dl_min"] == min(known) and row["glucose_mg_dl_max"] == max(known)


@pytest.mark.parametrize(
    ("grid", "minutes", "over"),
    [
        ("icu_hourly", 60, "stays"),
        ("ward_hourly", 60, "visits"),
        ("stays_short", 5, "stays"),
        ("visits_long", 1440, "visits"),
    ],
)
def test_a_grid_against_a_plain_recount(root, grid, minutes, over):
    """Each row is recounted in Python from the measurements known at the end of its step."""
    from statistics import median

    measured = [
        r for r in rows(root, "harmonised/measurements") if r["fate"] == "kept" and r["concept"] == "glucose"
    ]
    begin = START + (timedelta(hours=2) if over == "stays" else timedelta(0))
    found = rows(root, f"features/{grid}")
    assert found
    long = {}
    for row in rows(root, f"features/{grid}_long"):
        if row["concept"] == "glucose":
            long[(row["patient_id"], row["known_at"])] = (row["value"], row["n_obs"], row["age_h"])
    for row in found:
        by_step: dict[int, list[float]] = {}
        now = row["hour" if minutes == 60 else "step"]
        for r in measured:
            step = (r["event_at"] - begin) // timedelta(minutes=minutes)
            belongs = r["patient_id"] == row["patient_id"] and (step >= 0 or over == "visits")
            if belongs and step <= now and r["available_at"] <= row["known_at"]:
                by_step.setdefault(step, []).append(r["value"])
        newest = max(by_step, default=None)
        fresh = newest is not None and (now - newest) * minutes <= 12 * 60
        cells = (row["glucose_mg_dl"], row["glucose_n_obs"], row["glucose_age_h"])
        assert cells == (
            median(by_step[newest]) if fresh else None,
            len(by_step.get(now, [])),
            (now - newest) * minutes / 60 if fresh else None,
        )
        assert long.get((row["patient_id"], row["known_at"])) == (cells if fresh else None)


def test_running_visits_have_no_label_yet(root):
    assert {row["visit_id"] for row in rows(root, "labels/in_hospital_mortality")} == {
        f"v{n}" for n in range(1, 6)
    }
    groups = rows(root, "labels/diagnosis_groups")
    assert {row["code_group"] for row in groups if row["label"]} == {"CIR019"}


def test_ends_are_events_of_their_own(root):
    events = rows(root, "harmonised/events")
    assert all(row["end_at"] is None or row["end_at"] <= row["available_at"] for row in events)
    texts = {row["text"] for row in events}
    assert {"start of heparin by iv", "end of heparin by iv", "culture of blood: escherichia coli"} <= texts


def test_nothing_new_means_nothing_done(tmp, root):
    before = catalog.load(root).content
    outcome = harmonise.harmonise(root, "again", HOSPITALS, "500MB", 2, tmp / "dbt_project")
    assert outcome.reused and not outcome.results
    assert catalog.load(root).content == before


def test_an_edited_task_is_the_one_that_runs(tmp, root):
    project = tmp / "dbt_project"
    task = project / "tasks" / "length_of_stay.yaml"
    assert {row["label"] for row in rows(root, "labels/length_of_stay")} == {0}
    task.write_text(task.read_text().replace("interval 7 days", "interval 3 days"))
    outcome = harmonise.harmonise(root, "edited", HOSPITALS, "500MB", 2, project)
    assert not outcome.reused
    assert {row["label"] for row in rows(root, "labels/length_of_stay")} == {1}


def test_a_file_from_before_a_column_of_the_contract_has_nulls_there(tmp_path):
    old, new = str(tmp_path / "old.parquet"), str(tmp_path / "new.parquet")
    columns = {"visit_id": "VARCHAR", "is_inpatient": "BOOLEAN"}
    with duckdb.connect() as connection:
        connection.execute(f"copy (select 'v1' as visit_id) to '{old}'")
        connection.execute(f"copy (select true as is_inpatient, 'v2' as visit_id) to '{new}'")
        for files, found in (([old], [("v1", None)]), ([old, new], [("v1", None), ("v2", True)])):
            relation = warehouse_run._relation(files, columns)
            assert connection.execute(f"{relation} order by visit_id").fetchall() == found


def test_without_an_accepted_hospital_it_says_so(tmp_path):
    with pytest.raises(harmonise.NothingAccepted, match="no hospital has an accepted input layer"):
        harmonise.harmonise(str(tmp_path), "test", ["north"])


def test_dbt_unit_tests(tmp_path):
    """Mappings and clocks, as unit tests beside the models, on the computed dictionary."""
    results = warehouse_run.unit_tests(tmp_path)
    assert len(results) >= 2
    assert {r.name: r.status for r in results if r.status != "pass"} == {}
