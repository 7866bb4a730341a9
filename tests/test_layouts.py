"""Export layouts on real open data: every row of every file is accounted for, and lands where and when it happened."""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from orchestration import catalog, dictionary, harmonise, hospitals

REPOSITORY = Path(__file__).parent.parent
DATA = REPOSITORY.parent / "shared" / "data"
LOCATIONS = {
    "mimic_iii": "mimic-iii-demo-1.4",
    "mimic_iv_ed": "mimic-iv-ed-demo-2.2",
    "synthea_csv": "synthea/dbt-synthea-csv",
    "physionet_2012": "physionet-2012",
}
# Rows of the input layer and rows rejected, a reason each. Both were counted in the files, not read off a run.
ROWS = {
    "mimic_iii": (
        {
            "patients": 100,
            "visits": 129,
            "stays": 136 + 524 - 129 - 167,
            "measurements": 76_074
            + 758_355
            - 648
            + 11_320
            + 3_010
            + 63
            + 475
            + 73,  # the last: rates and ends of vasoactive drugs, CareVue and MetaVision
            "diagnoses": 1_761,
            "procedures": 506 + 753 + 1_579,
            "microbiology": 2_003,
            "notes": 0,
        },
        {
            "a_discharge_is_no_stay": 129,
            "part_of_an_icu_stay": 167,
            "marked_as_error": 648,
        },
    ),
    "mimic_iv_ed": (
        {
            "patients": 64,
            "visits": 222,
            "stays": 222,
            "measurements": 1_599 + 6_311,
            "diagnoses": 545,
            "medications": 2_411 + 796,
            "notes": 222,
        },
        {
            "repeats_another_row": 222 - 64,
            "another_class_of_the_drug": 2_764 - 2_411,
            "another_code_of_the_drug": 1_082 - 796,
            "not_measured": 8 * 222 - 1_599 + 8 * 1_038 - 6_311,
        },
    ),
    "synthea_csv": ({"measurements": 990}, {"repeats_another_row": 990 - 97}),
    "physionet_2012": (
        {
            "patients": 4_000,
            "visits": 4_000,
            "stays": 4_000,
            "measurements": 1_757_980 - 4 * 4_000 - 2_220,
        },
        {"told_of_the_person": 4 * 4_000, "minus_one_is_missing": 1_894 + 326},
    ),
}

pytestmark = pytest.mark.skipif(
    not (DATA / "mimic-iii-demo-1.4").is_dir(), reason="the open data is not at ../shared/data"
)


def raw(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("layouts") / "data")


@pytest.fixture(scope="module")
def published(data_root: str):
    """hospital, table -> its rows; a hospital is ingested once, when a test first asks for it."""

    @cache
    def ingested(hospital: str) -> catalog.Catalog:
        environment = os.environ | {
            "WARDLINE_DATA": data_root,
            "WARDLINE_HOSPITALS": "",
            f"{hospital.upper()}_LOCATION": str(DATA / LOCATIONS[hospital]),
        }
        command = [sys.executable, "-m", "orchestration.ingest", hospital]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return catalog.load(data_root)

    @cache
    def table(hospital: str, name: str) -> pl.DataFrame:
        return pl.read_parquet(ingested(hospital).files(f"input/{hospital}/{name}"))

    return table


def test_a_layout_without_location_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    for hospital in LOCATIONS:
        monkeypatch.delenv(f"{hospital.upper()}_LOCATION", raising=False)
    assert not set(LOCATIONS) & set(hospitals.configured_names())
    monkeypatch.setenv("MIMIC_III_LOCATION", str(DATA / LOCATIONS["mimic_iii"]))
    assert "mimic_iii" in hospitals.configured_names()


@pytest.mark.parametrize("hospital", LOCATIONS)
def test_every_row_of_every_file_is_in_or_rejected(published, hospital: str) -> None:
    """Rows by a second reader (Python's own csv here) = rows that came in + rows rejected with a reason."""
    read = {}
    for row in published(hospital, "accounting").iter_rows(named=True):
        if row["file"] not in read:
            with gzip.open(DATA / LOCATIONS[hospital] / row["file"], "rt", newline="") as file:
                read[row["file"]] = sum(1 for _ in csv.reader(file)) - 1
        assert read[row["file"]] == row["rows_independent"] == row["rows_in"] + row["rows_rejected"], row
    tables, reasons = ROWS[hospital]
    assert {name: published(hospital, name).height for name in tables} == tables
    rejected = Counter(published(hospital, "rejected")["reason"])
    assert {reason: rejected[reason] for reason in reasons} == reasons


@pytest.mark.parametrize("hospital", LOCATIONS)
def test_nothing_is_known_before_it_happened(published, hospital: str) -> None:
    for name in ("visits", "stays", "measurements", "diagnoses", "procedures", "medications", "microbiology"):
        rows = published(hospital, name)
        early = pl.col("available_at").is_null() | (pl.col("available_at") < pl.col("event_at"))
        assert rows.filter(early).height == 0, name


@pytest.mark.parametrize("hospital", LOCATIONS)
def test_the_numbers_of_every_mapped_item_reach_its_concept(published, hospital: str) -> None:
    """Item by item and number by number: but for one in a hundred they convert, if need be by a rescue of that number."""
    units = {row["spelling"]: row["ucum"] for row in dictionary.read_csv(dictionary.SEEDS / "units.csv")}
    reach = {(row["concept"], row["unit_from"]) for row in dictionary.conversions()}
    rescues = {
        (row["concept"], row["declared_unit"]): (float(row["low"]), float(row["high"]))
        for row in dictionary.read_csv(dictionary.SEEDS / "rescues.csv")
    }

    def converts(concept: str, unit: str | None, value: float) -> bool:
        meant = (concept, units.get(dictionary.spelled(unit or "")))
        low, high = rescues.get(meant, (1, 0))
        return meant in reach or low <= value <= high

    items = published(hospital, "items").filter(pl.col("decision") == "map")
    items = items.select("source_table", "code", "concept", declared="unit")
    mapped = published(hospital, "measurements").join(items, on=["source_table", "code"])
    mapped = mapped.filter(pl.col("value_number").is_not_null()).with_columns(pl.coalesce("unit", "declared"))
    numbers, lost = Counter(), Counter()
    counted = mapped.group_by("source_table", "code", "concept", "unit", "value_number").len()
    for source_table, code, concept, unit, value, rows in counted.iter_rows():
        numbers[source_table, code, concept] += rows
        lost[source_table, code, concept] += rows * (not converts(concept, unit, value))
    assert not {item: n for item, n in lost.items() if n > numbers[item] / 100}


def test_inspired_oxygen_of_carevue_is_read(published) -> None:
    """Charted as a fraction beside the unit torr: 1,215 rows of what was set and 19 of what was measured."""
    rows = published("mimic_iii", "measurements").filter(
        (pl.col("source_table") == "chartevents") & pl.col("code").is_in(["189", "190"])
    )
    numbers = rows.filter(pl.col("value_number").is_not_null())
    assert dict(numbers.group_by("code").len().rows()) == {"189": 19, "190": 1_215}
    assert numbers["unit"].null_count() == numbers.height and numbers["value_number"].is_between(0.2, 1).all()


@pytest.mark.parametrize(
    ("hospital", "source_table", "least"),
    [
        ("mimic_iii", "labevents", 0.90),
        ("mimic_iii", "chartevents", 0.60),
        ("physionet_2012", "series", 0.98),
    ],
)
def test_most_numbers_reach_a_concept(published, hospital: str, source_table: str, least: float) -> None:
    numbers = published(hospital, "measurements").filter(
        pl.col("source_table").str.starts_with(source_table) & pl.col("value_number").is_not_null()
    )
    items = published(hospital, "items").select("source_table", "code", "decision")
    decided = numbers.join(items, on=["source_table", "code"], how="left")["decision"]
    assert (decided == "map").sum() / numbers.height >= least


def test_both_charting_systems_of_mimic_iii_reach_one_concept(published) -> None:
    rates = published("mimic_iii", "measurements").filter(
        (pl.col("source_table") == "chartevents") & pl.col("code").is_in(["211", "220045"])
    )
    assert dict(rates.group_by("code").len().rows()) == {"211": 7_396, "220045": 8_093}
    items = published("mimic_iii", "items").filter(pl.col("code").is_in(["211", "220045"]))
    assert set(items["concept"]) == {"heart_rate"}


def test_mimic_iii_is_icd_9_alone_and_a_person_over_89_is_91(published) -> None:
    assert set(published("mimic_iii", "diagnoses")["code_system"]) == {"ICD9CM"}
    born = {
        row["subject_id"]: int(row["dob"][:4])
        for row in raw(DATA / LOCATIONS["mimic_iii"] / "PATIENTS.csv.gz")
    }
    patients = published("mimic_iii", "patients")
    for patient, year in patients.select("patient_id", "birth_year").iter_rows():
        assert year == born[patient] + (209 if born[patient] < 2000 else 0)
    visits = published("mimic_iii", "visits").join(patients, on="patient_id")
    ages = visits["event_at"].dt.year() - visits["birth_year"]
    assert ages.min() >= 17 and ages.max() <= 100
    assert published("mimic_iii", "visits")["died_in_visit"].sum() == 40


def test_emergency_patients_are_in_the_split_of_their_person(published) -> None:
    for person, group, split in (
        published("mimic_iv_ed", "patients").select("person_id", "person_group", "split").rows()
    ):
        drawn = int(hashlib.md5(f"{group}\x1f{person}".encode()).hexdigest()[:8], 16) / 2**32
        assert group == "mimic_iv"
        assert split == ("train" if drawn < 0.8 else "tuning" if drawn < 0.9 else "held_out")


def test_an_emergency_visit_that_was_admitted_is_mimic_iv_s_visit(published) -> None:
    admissions = {
        r["hadm_id"]: r["subject_id"] for r in raw(DATA / "mimic-iv-demo-2.2" / "hosp" / "admissions.csv.gz")
    }
    visits = published("mimic_iv_ed", "visits")
    linked = visits.filter(pl.col("visit_id").is_in(list(admissions)))
    assert linked.height == 171  # 172 stays were admitted, two of them to one admission
    assert all(
        admissions[visit] == patient for visit, patient in linked.select("visit_id", "patient_id").rows()
    )
    triage = published("mimic_iv_ed", "measurements").filter(pl.col("source_table") == "triage")
    assert triage.join(visits, on=["visit_id", "event_at"]).height == triage.height


def test_pain_is_read_where_it_is_a_number(published) -> None:
    pain = published("mimic_iv_ed", "measurements").filter(pl.col("code") == "pain")
    read = dict(
        pain.filter(pl.col("value_text").is_in(["0/10", "8.5", "asleep"]))
        .select("value_text", "value_number")
        .rows()
    )
    assert read == {"0/10": 0.0, "8.5": 8.5, "asleep": None}


def test_a_relative_time_is_an_hour_of_the_stay(published) -> None:
    start, end = datetime(2012, 1, 1), datetime(2012, 1, 3)
    series = published("physionet_2012", "measurements")
    assert (series["event_at"].min(), series["event_at"].max()) == (start, end)
    first = series.filter((pl.col("patient_id") == "132539") & (pl.col("code") == "GCS")).sort("event_at")
    assert first.row(0, named=True)["event_at"] == start + timedelta(minutes=7)
    assert first.row(0, named=True)["value_number"] == 15


def test_the_outcome_of_the_challenge_is_the_end_of_the_visit(published) -> None:
    outcomes = {r["RecordID"]: r for r in raw(DATA / LOCATIONS["physionet_2012"] / "Outcomes-a.txt.gz")}
    visits = published("physionet_2012", "visits")
    assert visits["died_in_visit"].sum() == 554
    for visit, died, started, ended in visits.select(
        "visit_id", "died_in_visit", "event_at", "end_at"
    ).rows():
        assert died == (outcomes[visit]["In-hospital_death"] == "1")
        assert (ended - started).days == max(2, int(outcomes[visit]["Length_of_stay"]))
    sexes = Counter(published("physionet_2012", "patients")["sex"])
    assert sexes[None] == 3


def test_synthea_speaks_in_standard_codes(published) -> None:
    assert set(published("synthea_csv", "diagnoses")["code_system"]) <= {"SNOMED", "RxNorm"}
    assert set(published("synthea_csv", "medications")["code_system"]) == {"RxNorm", "CVX"}
    codes = published("synthea_csv", "measurements").group_by("code_system").len()
    assert dict(codes.rows()) == {"LOINC": 915, "Synthea": 75}


def test_encounters_that_are_no_stays_say_so(published) -> None:
    inpatient = {name: published(name, "visits")["is_inpatient"] for name in LOCATIONS}
    assert (inpatient["synthea_csv"].len(), inpatient["synthea_csv"].sum()) == (604, 11)
    assert not inpatient["mimic_iv_ed"].fill_null(True).any()
    assert inpatient["mimic_iii"].is_null().all() and inpatient["physionet_2012"].is_null().all()


@pytest.mark.night
@pytest.mark.parametrize("hospital", LOCATIONS)
def test_rows_in_are_the_sum_of_their_fates(published, data_root: str, hospital: str) -> None:
    rows = published(hospital, "measurements").group_by("source_table").len().rows()
    outcome = harmonise.harmonise(data_root, f"layouts-{hospital}", [hospital])
    assert not outcome.failed_tests, [test.name for test in outcome.failed_tests]
    fates = pl.read_parquet(catalog.load(data_root).files("harmonised/fates"))
    assert dict(fates.group_by("source_table").agg(pl.col("rows").sum()).rows()) == dict(rows)
    assert fates.filter((pl.col("fate") == "quarantined") & pl.col("fate_reason").is_null()).height == 0
    if hospital == "physionet_2012":
        labels = pl.read_parquet(catalog.load(data_root).files("labels/in_hospital_mortality"))
        assert (labels.height, labels["label"].sum()) == (4_000, 554)
