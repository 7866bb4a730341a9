"""OMOP CDM 5.4, a layout made of YAML and CSV alone, on 28 synthetic persons: nothing is lost, standard codes carry it."""

from __future__ import annotations

import csv
import gzip
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from orchestration import catalog, dictionary, harmonise

REPOSITORY = Path(__file__).parent.parent
EXPORT = REPOSITORY.parent / "shared" / "data" / "synthea" / "Synthea27Nj-omop54"

pytestmark = pytest.mark.skipif(
    not (EXPORT / "PERSON.csv.gz").is_file(),
    reason="the OMOP example is not at ../shared/data/synthea/Synthea27Nj-omop54",
)


def raw(name: str) -> list[dict[str, str]]:
    with gzip.open(EXPORT / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data root into which the example was ingested once."""
    folder = str(tmp_path_factory.mktemp("omop") / "data")
    environment = os.environ | {
        "WARDLINE_DATA": folder,
        "OMOP_LOCATION": str(EXPORT),
        "WARDLINE_HOSPITALS": "",
    }
    command = [sys.executable, "-m", "orchestration.ingest", "omop"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def table(root: str, name: str) -> pl.DataFrame:
    return pl.read_parquet(catalog.load(root).files(f"input/omop/{name}"))


@pytest.mark.parametrize(
    ("name", "exports"),
    [
        ("patients", ["PERSON"]),
        ("visits", ["VISIT_OCCURRENCE"]),
        ("stays", ["VISIT_DETAIL"]),
        ("measurements", ["MEASUREMENT", "OBSERVATION"]),
        ("diagnoses", ["CONDITION_OCCURRENCE"]),
        ("procedures", ["PROCEDURE_OCCURRENCE"]),
        ("medications", ["DRUG_EXPOSURE"]),
    ],
)
def test_every_row_is_there(root: str, name: str, exports: list[str]) -> None:
    assert table(root, name).height == sum(len(raw(export)) for export in exports)


def test_nothing_is_known_before_it_happened(root: str) -> None:
    for name in ("visits", "stays", "measurements", "diagnoses", "procedures", "medications"):
        rows = table(root, name)
        assert (
            rows.filter(
                pl.col("available_at").is_null() | (pl.col("available_at") < pl.col("event_at"))
            ).height
            == 0
        ), name


def test_codes_are_standard_codes(root: str) -> None:
    assert Counter(table(root, "diagnoses")["code_system"]) == {"SNOMED": 470}
    assert Counter(table(root, "medications")["code_system"]) == {"RxNorm": 883}
    loinc = table(root, "measurements").filter(pl.col("code_system") == "LOINC")
    assert loinc["code"].str.contains(r"^\d+-\d$").all()


def test_deaths_end_the_visits_in_which_they_fall(root: str) -> None:
    assert table(root, "patients")["death_at"].drop_nulls().len() == len(raw("DEATH"))
    died = table(root, "visits").filter("died_in_visit").join(table(root, "patients"), on="patient_id")
    assert (died["death_at"].dt.date() <= died["end_at"].dt.date()).all()


def test_only_inpatient_visits_are_stays(root: str) -> None:
    expected = sum(row["visit_concept_id"] == "9201" for row in raw("VISIT_OCCURRENCE"))
    assert table(root, "visits")["is_inpatient"].sum() == expected == 13
    assert table(root, "visits")["is_inpatient"].null_count() == 0


def test_mapped_values_reach_their_concept(root: str) -> None:
    """Every mapped number has a known unit that converts, and is plausible, but 80 proteins that lie about their unit: rescues."""
    concepts = {row["concept"]: row for row in dictionary.read_csv(dictionary.SEEDS / "concepts.csv")}
    units = {row["spelling"]: row["ucum"] for row in dictionary.read_csv(dictionary.SEEDS / "units.csv")}
    factors = {(row["concept"], row["unit_from"]): row for row in dictionary.conversions()}
    rescues = {
        (row["concept"], row["declared_unit"]): row
        for row in dictionary.read_csv(dictionary.SEEDS / "rescues.csv")
    }
    items = table(root, "items").filter(pl.col("decision") == "map")
    items = items.select("source_table", "code", "concept", declared="unit")
    mapped = table(root, "measurements").join(items, on=["source_table", "code"])
    assert Counter(mapped["source_table"]) == {"measurement": 8_787, "observation": 420}
    numbers = mapped.filter(pl.col("value_number").is_not_null())
    assert numbers.height == 8_787  # the export has no value beside the 420 observed scores
    assert numbers["concept"].n_unique() >= 50
    outside: Counter[tuple[str, bool]] = Counter()
    rows = numbers.select("concept", pl.coalesce("unit", "declared"), "value_number")
    for concept, unit, value in rows.iter_rows():
        meant = units[dictionary.spelled(unit)]
        row = factors[concept, meant]
        low, high = float(concepts[concept]["plausible_low"]), float(concepts[concept]["plausible_high"])
        if not low <= value * row["factor"] + row["shift"] <= high:
            rescue = rescues[concept, meant]
            outside[concept, float(rescue["low"]) <= value <= float(rescue["high"])] += 1
    assert outside == {("total_protein", True): 40, ("globulin", True): 40}


@pytest.mark.night
def test_rows_in_are_the_sum_of_their_fates(root: str) -> None:
    outcome = harmonise.harmonise(root, "omop", ["omop"])
    assert not outcome.failed_tests, [test.name for test in outcome.failed_tests]
    fates = pl.read_parquet(catalog.load(root).files("harmonised/fates"))
    counted = fates.group_by("source_table", "fate").agg(pl.col("rows").sum()).rows()
    assert {(table, fate): rows for table, fate, rows in counted} == {
        ("measurement", "kept"): 8_687,
        ("measurement", "rescued"): 80,
        ("measurement", "duplicate"): 20,
        ("measurement", "ignored"): 1_253,
        ("observation", "quarantined"): 420,
        ("observation", "ignored"): 7_679,
    }
