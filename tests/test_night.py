"""Whole nights in a fresh copy of the repository, on a small demo: the main job in a subprocess, with nothing prepared.

The nights of this file follow one another, as nights do: the first makes everything, in the second nothing is new, the
third meets a poisoned export.
"""

import csv
import gzip
import time
from pathlib import Path

import polars as pl
import pytest

from orchestration import dbt
from orchestration.tasks import definition
from tests.conftest import House, fresh_house

ROOMS = [
    *(
        f"harmonised/{t}"
        for t in (
            "diagnoses",
            "events",
            "fates",
            "measurements",
            "measurements_hourly",
            "medications",
            "unmapped",
        )
    ),
    *(
        f"features/{t}"
        for t in ("admission_summary", "icu_hourly", "icu_hourly_long", "ward_hourly", "ward_hourly_long")
    ),
    *(f"labels/{t}" for t in ("attrition", *definition.read(dbt.PROJECT))),
    "splits",
    *(f"meds/{t}" for t in ("north", "south", "all")),
    *(f"yaib/{t}" for t in ("north", "south")),
    *(f"instructions/{t}" for t in ("clinical_reasoning", "schema_alignment")),
    "embeddings/minilm",
    *(f"weights/{t}" for t in ("base_model", "stage1", "stage2")),
    *(f"evaluation/{t}" for t in ("clinical_reasoning", "schema_alignment")),
]
SMALL = [
    ("ray_jobs/recipes/tiny.yaml", r"^  steps: \d+", "  steps: 4"),
    ("ray_jobs/recipes/tiny.yaml", r"^  align_steps: \d+", "  align_steps: 4"),
    ("ray_jobs/recipes/tiny.yaml", r"^  blind_steps: \d+", "  blind_steps: 2"),
    ("ray_jobs/recipes/tiny.yaml", r"^  warmup: \d+", "  warmup: 1"),
    (
        "orchestration/defs/training/evaluation/defs.yaml",
        r"questions_per_split: \d+",
        "questions_per_split: 24",
    ),
]


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> House:
    folder = tmp_path_factory.mktemp("night")
    made = fresh_house(folder / "wardline")
    made.extra |= {"WARDLINE_DEMO_PATIENTS": "40", "WARDLINE_HOSPITALS": "north,south"}
    for path, pattern, replacement in SMALL:
        made.edit(path, pattern, replacement)
    (folder / "watch").mkdir()
    made.calls = made.watch_connections(folder / "watch")
    return made


@pytest.fixture(scope="module")
def first(house):
    """The first night, from nothing."""
    ran = house.job("nightly_retraining")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-4000:]
    return ran


def read(house: House, key: str) -> pl.DataFrame:
    files = [house.data / f["path"] for f in house.catalog["accepted"][key]["files"]]
    return pl.read_parquet(files, hive_partitioning=False)


def test_a_night_from_nothing_publishes_every_room(house, first):
    accepted = house.catalog["accepted"]
    assert set(ROOMS) <= set(accepted)
    assert {"input/north/measurements", "input/south/measurements"} <= set(accepted)
    for key, entry in accepted.items():
        for file in entry["files"]:
            assert (house.data / file["path"]).exists(), f"{key} names {file['path']}"


def test_every_row_of_every_file_is_accounted_for(house, first):
    for hospital in ("north", "south"):
        rows_in = read(house, f"input/{hospital}/measurements").height
        fates = read(house, "harmonised/fates").filter(pl.col("hospital") == hospital)
        assert (
            fates["rows"].sum()
            == rows_in
            == read(house, "harmonised/measurements").filter(pl.col("hospital") == hospital).height
        )
    with gzip.open(house.data / "exports/north/lab_results.csv.gz", "rt") as file:
        written = sum(1 for _ in csv.reader(file)) - 1
    labs = read(house, "input/north/measurements").filter(pl.col("row_id").str.starts_with("lab_results:"))
    rejected = read(house, "input/north/rejected").filter(pl.col("raw_table") == "lab_results")
    assert written == labs.height + rejected.height > 1000


def test_twins_are_equal_whichever_hospital_wrote_them(house, first):
    splits = read(house, "splits")
    persons = splits.join(splits, on="person_id", suffix="_other").filter(
        (pl.col("hospital") == "north") & (pl.col("hospital_other") == "south")
    )
    assert persons.height >= 3
    assert (persons["split"] == persons["split_other"]).all()
    hourly = read(house, "features/icu_hourly")
    values = [
        c
        for c in hourly.columns
        if f"{c}_n_obs" not in hourly.columns and not c.endswith(("_n_obs", "_age_h"))
    ]
    values = [c for c in values if hourly.schema[c] == pl.Float64]
    twins = persons.select("patient_id", "patient_id_other", "person_id")
    north = hourly.filter(pl.col("hospital") == "north").join(twins, on="patient_id")
    south = hourly.filter(pl.col("hospital") == "south").join(
        twins.rename({"patient_id": "patient_north", "patient_id_other": "patient_id"}), on="patient_id"
    )
    both = north.sort("person_id", "known_at"), south.sort("person_id", "known_at")
    assert both[0].height == both[1].height
    compared = 0
    for column in values:
        a, b = both[0][column], both[1][column]
        charted = a.is_not_null() & b.is_not_null()
        compared += charted.sum()
        assert ((a - b).abs() <= 1e-6 * b.abs()).filter(charted).all(), column
    assert compared > 0 or both[0].height == 0


def test_instructions_carry_what_is_promised(house, first):
    promised = [
        "id",
        "hospital",
        "patient_id",
        "visit_id",
        "cutoff_at",
        "template_id",
        "question",
        "answer",
        "answer_type",
        "evidence",
        "split",
    ]
    for name in ("schema_alignment", "clinical_reasoning"):
        questions = read(house, f"instructions/{name}")
        assert set(promised) <= set(questions.columns)
        assert questions.height > 50
        assert questions["id"].is_unique().all()


def test_the_log_carries_no_patient(house, first):
    with gzip.open(house.data / "exports/north/patients.csv.gz", "rt") as file:
        names = {row[key] for row in csv.DictReader(file) for key in ("patient_nr", "civil_registry")}
    history = b"".join(p.read_bytes() for p in (house.folder / ".dagster").rglob("*") if p.is_file())
    logs = b"".join(p.read_bytes() for p in house.data.rglob("*.log"))
    said = (first.stdout + first.stderr).encode() + history + logs
    assert len(names) >= 40
    assert not [name for name in names if name.encode() in said]


def test_nothing_calls_home(house, first):
    assert not house.calls.exists(), house.calls.read_text()


def test_a_second_night_with_nothing_new_trains_nothing_within_a_minute(house, first):
    before, started = house.catalog["accepted"], time.monotonic()
    ran = house.job("nightly_retraining")
    took = time.monotonic() - started
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-4000:]
    assert house.catalog["accepted"] == before
    assert "nothing new" in ran.stderr + ran.stdout
    assert took < 60, f"{took:.0f} s"


def test_a_poisoned_export_is_held_back_and_the_night_ends_red(house, first):
    before = house.catalog["accepted"]
    whole = house.data / "exports/north/lab_results.csv.gz"
    whole.with_name("cut.csv.gz").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    tables = "orchestration/defs/hospitals/north/tables.yaml"
    try:
        house.edit(tables, r"path: lab_results\.csv\.gz", "path: cut.csv.gz")
        ran = house.job("nightly_retraining")
        said = ran.stdout + ran.stderr
        assert ran.returncode != 0
        assert "the_night_is_whole" in said
        assert "cut.csv.gz" in house.catalog["held_back"]["north"]["reason"]
        assert {k: v for k, v in house.catalog["accepted"].items() if k.startswith("input/")} == {
            k: v for k, v in before.items() if k.startswith("input/")
        }
        assert house.catalog["accepted"]["weights/stage2"] == before["weights/stage2"]
        alone = house.job("retrain")
        assert alone.returncode == 0, (alone.stdout + alone.stderr)[-4000:]
        assert house.catalog["accepted"]["weights/stage2"] == before["weights/stage2"]
    finally:
        house.edit(tables, r"path: cut\.csv\.gz", "path: lab_results.csv.gz")


def test_with_no_hospital_accepted_nothing_is_trained(tmp_path):
    alone = fresh_house(tmp_path / "wardline")
    alone.extra |= {"WARDLINE_DEMO_PATIENTS": "20", "WARDLINE_HOSPITALS": "north"}
    alone.edit("orchestration/defs/hospitals/north/tables.yaml", r"lab_results\.csv\.gz", "lab_result.csv.gz")
    ran = alone.job("nightly_retraining")
    assert ran.returncode != 0
    assert "lab_result.csv.gz" in ran.stdout + ran.stderr
    assert "weights/stage1" not in (
        alone.catalog["accepted"] if Path(alone.data, "catalog.json").exists() else {}
    )
