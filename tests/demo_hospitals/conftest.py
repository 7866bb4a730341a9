"""The exports of both demo hospitals, read back by the test's own means."""

import gzip
import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from orchestration.synthetic.export import DemoExport

ROOT = Path(__file__).resolve().parents[2]
HOSPITALS = ROOT / "orchestration" / "defs" / "hospitals"
PATIENTS, TWINS, SEED = 300, 40, 20

# The test's own way back from each hospital's unit, written from tables of molar masses and definitions.
BACK = {
    "mmol/L": {"glucose": 18.0156, "urea_nitrogen": 2.8014, "calcium": 4.0078, "magnesium": 2.4305, "phosphate": 3.0974},
    "µmol/L": {"creatinine": 0.011312, "bilirubin_total": 0.0584673, "bilirubin_direct": 0.0584673},
    "g/L": {"albumin": 0.1, "hemoglobin": 0.1, "mchc": 0.1, "fibrinogen": 100},
    "L/L": {"hematocrit": 100},
    "fraction": {"fio2": 100},
    "kPa": {"paco2": 1 / 0.133322387415, "pao2": 1 / 0.133322387415},
    "ng/L": {"troponin_t": 0.001},
    "lbs": {"weight": 0.45359237},
    "in": {"height": 2.54},
    "mg/dL": {"crp": 10, "lactate": 1 / 9.0078, "calcium_ionized": 1 / 4.0078},
}  # fmt: skip


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """Both exports on disk: hospital -> folder."""
    base = tmp_path_factory.mktemp("exports")
    for hospital in ("north", "south"):
        DemoExport(hospital, hospital, PATIENTS, TWINS, SEED).write(str(base / hospital))
    return {hospital: base / hospital for hospital in ("north", "south")}


def read(folder: Path, name: str) -> pl.DataFrame:
    content = (folder / name).read_bytes()
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    separator = "," if name.endswith(".gz") else "|"
    return pl.read_csv(io.BytesIO(content), separator=separator, infer_schema=False)


def utc(column: str) -> pl.Expr:
    local = pl.col(column).str.to_datetime("%m/%d/%Y %H:%M").dt.replace_time_zone("America/Chicago")
    return local.dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def iso(column: str) -> pl.Expr:
    return pl.col(column).str.to_datetime("%Y-%m-%d %H:%M:%S")


def canonical(rows: pl.DataFrame) -> pl.DataFrame:
    """Adds `number` in the concept's canonical unit; text results become null."""
    value = rows["value"].cast(pl.Float64, strict=False).to_numpy()
    factor = [BACK.get(u, {}).get(c, 1.0) for u, c in zip(rows["unit"], rows["concept"], strict=True)]
    value = value * np.array(factor)
    fahrenheit = (rows["unit"] == "F").fill_null(False).to_numpy()
    return rows.with_columns(number=pl.Series(np.where(fahrenheit, (value - 32) / 1.8, value)))


def mapped(hospital: str) -> pl.DataFrame:
    items = pl.read_csv(HOSPITALS / hospital / "items.csv", infer_schema=False)
    return items.filter(pl.col("decision") == "map").select("source_table", "code", "concept", "label")


def north_values(folder: Path) -> pl.DataFrame:
    """person, concept, at, stored, unit, value, number; heart rate of intensive care apart."""
    persons = read(folder, "patients.csv.gz").select("patient_nr", person="civil_registry")
    labs = read(folder, "lab_results.csv.gz").select(
        "patient_nr", code="analysis", at=iso("sampled_at"), stored=iso("validated_at"), value="result", unit="unit",
        source_table=pl.lit("lab_results"),
    )  # fmt: skip
    bedside = read(folder, "observations.csv.gz").select(
        "patient_nr", code="observation", at=iso("observed_at"), stored=iso("entered_at"), value="value", unit="unit",
        source_table=pl.lit("observations"),
    )  # fmt: skip
    rows = (
        pl.concat([labs, bedside])
        .join(mapped("north"), on=["source_table", "code"])
        .join(persons, on="patient_nr")
    )
    return canonical(rows)


def south_values(folder: Path) -> pl.DataFrame:
    persons = read(folder, "pt_master.csv").select("PAT_ID", person="MPI")
    labs = read(folder, "lab_result.csv").select(
        "PAT_ID", code="ITEM_ID", at=utc("COLLECT_DTTM"), stored=utc("RESULT_DTTM"), value="RSLT", unit="UOM",
        source_table=pl.lit("lab_result"),
    )  # fmt: skip
    bedside = read(folder, "flowsheet.csv").select(
        "PAT_ID", code="ITEM_ID", at=utc("CHART_DTTM"), stored=utc("FILE_DTTM"), value="VAL", unit="UOM",
        source_table=pl.lit("flowsheet"),
    )  # fmt: skip
    rows = (
        pl.concat([labs, bedside])
        .join(mapped("south"), on=["source_table", "code"])
        .join(persons, on="PAT_ID")
    )
    return canonical(rows)


def twins_of(exports) -> set[str]:
    north = set(read(exports["north"], "patients.csv.gz")["civil_registry"])
    return north & set(read(exports["south"], "pt_master.csv")["MPI"])
