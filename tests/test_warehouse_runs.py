"""The warehouse at work on a small input layer: conservation, nothing from the future, reuse, edits, buckets."""

from __future__ import annotations

import copy
import random
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from orchestration import catalog, dbt, harmonise, input_layer, warehouse_run
from tests import small_input
from tests.small_input import accept

START = datetime(2150, 3, 1, 8, 30)
CUT = START + timedelta(hours=24)
ITEMS = [
    {
        "source_table": "lab",
        "code": "glu",
        "label": "glucose",
        "unit": "mmol/L",
        "concept": "glucose",
        "decision": "map",
    },
    {
        "source_table": "lab",
        "code": "cre",
        "label": "creatinine",
        "unit": "umol/L",
        "concept": "creatinine",
        "decision": "map",
    },
    {
        "source_table": "icu",
        "code": "hr",
        "label": "heart rate",
        "unit": "/min",
        "concept": "heart_rate",
        "decision": "map",
    },
    {
        "source_table": "icu",
        "code": "urine",
        "label": "urine",
        "unit": "mL",
        "concept": "urine_output",
        "decision": "map",
    },
    {
        "source_table": "icu",
        "code": "fio2",
        "label": "fio2",
        "unit": "%",
        "concept": "fio2",
        "decision": "map",
    },
    {"source_table": "icu", "code": "alarm", "label": "alarm", "decision": "ignore", "reason": "alarm_limit"},
]


def world(patients: int = 6, seed: int = 7) -> dict[str, list[dict]]:
    """Visits of four days with an ICU stay; results that arrive late, copies, open ends, facts after the cut."""
    draw = random.Random(seed)
    tables: dict[str, list[dict]] = {name: [] for name in input_layer.tables()}
    tables["items"] = copy.deepcopy(ITEMS)
    for number in range(patients):
        who = {"patient_id": f"p{number}", "visit_id": f"v{number}"}
        tables["patients"].append(
            {"patient_id": who["patient_id"], "person_group": "demo", "person_id": str(number), "sex": "F"}
            | {"birth_year": 2090, "split": split_of("demo", str(number))}
        )
        end = START + timedelta(days=4) if number else None
        tables["visits"].append(
            who
            | {
                "event_at": START,
                "end_at": end,
                "available_at": START,
                "visit_type": "URGENT",
                "died_in_visit": False,
            }
        )
        stay_start, stay_end = START + timedelta(hours=2), START + timedelta(hours=30)
        tables["stays"].append(
            who
            | {"stay_id": f"s{number}", "event_at": stay_start, "end_at": stay_end if number else None}
            | {"available_at": stay_start, "care_unit": "MICU", "is_icu": True}
        )
        for code, high in (
            ("glu", 12),
            ("cre", 300),
            ("hr", 140),
            ("urine", 200),
            ("fio2", 60),
            ("alarm", 9),
        ):
            for _ in range(40):
                at = START + timedelta(minutes=draw.randrange(-60, 40 * 60))
                late = timedelta(minutes=draw.choice([0, 0, 5, 70, 200, 900]))
                value = round(draw.uniform(high / 3, high), 1)
                row = who | {"source_table": "lab" if code in ("glu", "cre") else "icu", "code": code}
                row |= {
                    "event_at": at,
                    "available_at": at + late,
                    "value_text": str(value),
                    "value_number": value,
                }
                tables["measurements"] += [dict(row) for _ in range(draw.choice([1, 1, 1, 2]))]
        for hours in (3, 12, 50):
            at = START + timedelta(hours=hours)
            tables["medications"].append(
                who
                | {"event_at": at, "end_at": at + timedelta(hours=20), "available_at": at, "kind": "infusion"}
                | {
                    "drug": "Heparin 25000 units/250 mL",
                    "rate": 10.0 + hours,
                    "rate_unit": "mL/h",
                    "route": "IV",
                }
            )
        tables["microbiology"].append(
            who
            | {"event_at": START, "available_at": START + timedelta(hours=26), "specimen": "BLOOD"}
            | {"organism": "ESCHERICHIA COLI", "antibiotic": "CEFEPIME", "interpretation": "S"}
        )
        tables["diagnoses"].append(
            who | {"event_at": START + timedelta(days=4), "code": "4280", "code_system": "ICD9CM", "rank": 1}
        )
    return tables


HOSPITALS = ["north", "house"]


def house(patients: int = 4, seed: int = 11) -> dict[str, list[dict]]:
    """A hospital whose moments lie before the cut: earlier visits with diagnoses, intensive care since the day before it, and
    arrivals in the emergency department, each with facts that come after the cut."""
    draw = random.Random(seed)
    hour = timedelta(hours=1)
    tables: dict[str, list[dict]] = {name: [] for name in input_layer.tables()}
    codes = {"hr": "heart_rate", "spo2": "spo2", "acuity": "triage_acuity", "plt": "platelets"}
    units = {"hr": "/min", "spo2": "%", "acuity": "score", "plt": "10*3/uL"}
    tables["items"] = [
        {
            "source_table": "vital",
            "code": c,
            "label": c,
            "unit": units[c],
            "concept": concept,
            "decision": "map",
        }
        for c, concept in codes.items()
    ]
    for number in range(patients):
        patient = {"patient_id": f"q{number}"}
        tables["patients"].append(
            patient
            | {"person_group": "house", "person_id": str(number), "sex": "M", "birth_year": 2080}
            | {"split": split_of("house", str(number))}
        )
        for kind, start, lasts in (
            ("earlier", START - 240 * hour, 96), ("icu", START - 6 * hour, 100), ("emergency", START + 20 * hour, 2 + number),
            ("later", START + 130 * hour, 9),
        ):  # fmt: skip
            who = patient | {"visit_id": f"{kind}{number}"}
            span = {"event_at": start, "end_at": start + lasts * hour, "available_at": start}
            seen = {"emergency": "EMERGENCY DEPARTMENT"}.get(kind, "URGENT")
            tables["visits"].append(who | span | {"visit_type": seen, "is_inpatient": kind != "emergency"})
            if kind == "icu":
                span = {"event_at": start + 2 * hour, "end_at": start + (30 + 20 * number) * hour}
            tables["stays"].append(
                who | span | {"stay_id": f"s-{kind}{number}", "care_unit": kind, "is_icu": kind == "icu"}
            )
            for code in codes:
                for after in [0, 0, *(draw.uniform(0, lasts) for _ in range(30))]:
                    at = start + after * hour
                    value = round(draw.uniform(60, 99)) if code != "acuity" else draw.choice([1, 2, 3])
                    row = who | {"source_table": "vital", "code": code, "value_number": value, "event_at": at}
                    late = draw.choice([0, 0, 1, 7]) * hour
                    tables["measurements"].append(row | {"value_text": str(value), "available_at": at + late})
            for code, at in (("4280", start + hour), ("25000", start + lasts * hour)):
                tables["diagnoses"].append(
                    who | {"event_at": at, "code": code, "code_system": "ICD9CM", "rank": 1}
                )
    return tables


def split_of(group: str, person: str) -> str:
    from hashlib import md5

    place = int(md5(f"{group}\x1f{person}".encode()).hexdigest()[:8], 16) / 2**32
    return "train" if place < 0.8 else "tuning" if place < 0.9 else "held_out"


def another_future(tables: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """The same past, another future: what was known after the cut is deleted or changed, ends after it move."""
    tables = copy.deepcopy(tables)
    for name, content in tables.items():
        kept = []
        for number, row in enumerate(content, start=1):
            row["row_id"] = f"{name}:{number}"
            if row.get("end_at") and row["end_at"] > CUT:
                row["end_at"] += timedelta(hours=5)
            if row.get("available_at", row.get("event_at", START)) > CUT:
                if number % 3 == 0:
                    continue
                if "value_number" in row:
                    row["value_number"] = round(row["value_number"] * 0.8 + 1, 1)
                    row["value_text"] = str(row["value_number"])
                row |= {"code": "41071"} if name == "diagnoses" else {}
            kept.append(row)
        tables[name] = kept
    for visit in tables["visits"]:
        visit["died_in_visit"] = not visit["end_at"] or visit["end_at"] > CUT
    return tables


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
