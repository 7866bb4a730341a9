"""The clinical dictionary: units parse, factors follow from molar masses, bounds are ordered, rescues touch no good value."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

import pytest
from ucumvert import PintUcumRegistry

from orchestration import dictionary

SEEDS = Path(__file__).parent.parent / "dbt_project" / "seeds"


def rows(name: str) -> list[dict[str, str]]:
    with (SEEDS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


CONCEPTS = {row["concept"]: row for row in rows("concepts")}
UNITS = rows("units")
RESCUES = rows("rescues")
registry = PintUcumRegistry()


@cache
def unit(ucum: str):
    """The UCUM unit as a pint quantity; a code that is only an annotation, such as {INR}, has dimension one."""
    return registry.from_ucum("1" if ucum.startswith("{") else ucum)


def convert(value: float, source: str, target: str, concept: str) -> float:
    """`value` of `concept` from one UCUM unit to another, by dimension, molar mass or valence."""
    row = CONCEPTS[concept]
    quantity, wanted = type(unit(source))(value, unit(source).units), unit(target)
    if "eq" in source and row["valence"]:
        quantity = quantity / float(row["valence"])
    by_mole = quantity.dimensionality.get("[substance]", 0) - wanted.dimensionality.get("[substance]", 0)
    if by_mole and row["molar_mass"]:
        quantity = quantity * (float(row["molar_mass"]) * unit("g/mol")) ** by_mole
    return quantity.to(wanted.units).magnitude


@pytest.mark.parametrize(
    "ucum", sorted({row["ucum"] for row in UNITS} | {row["unit"] for row in CONCEPTS.values()})
)
def test_every_unit_parses(ucum: str) -> None:
    assert unit(ucum) is not None


def test_spellings_are_folded_and_unique() -> None:
    spellings = [row["spelling"] for row in UNITS]
    assert len(set(spellings)) == len(spellings)
    assert all(spelling == "".join(spelling.lower().split()) for spelling in spellings)


@pytest.mark.parametrize(
    ("spelling", "ucum"),
    [
        ("MG/DL", "mg/dL"),
        ("µmol/L", "umol/L"),
        ("μmol/L", "umol/L"),
        ("mm Hg", "mm[Hg]"),
        ("Deg. F", "[degF]"),
        ("°C", "Cel"),
        ("K/uL", "10*3/uL"),
        ("m/uL", "10*6/uL"),
        ("10^9/L", "10*9/L"),
        ("IU/L", "U/L"),
        ("insp/min", "/min"),
    ],
)
def test_hospital_spellings_are_known(spelling: str, ucum: str) -> None:
    known = {row["spelling"]: row["ucum"] for row in UNITS}
    assert known["".join(spelling.lower().split())] == ucum


def test_every_canonical_unit_has_a_spelling() -> None:
    known = {row["ucum"] for row in UNITS}
    assert {row["unit"] for row in CONCEPTS.values()} <= known
    assert {row["ucum"] for row in UNITS if row["spelling"] == row["ucum"].lower()} >= known - {"K"}


@pytest.mark.parametrize(
    ("concept", "source", "factor"),
    [
        ("glucose", "mmol/L", 18.0156),
        ("creatinine", "umol/L", 0.011312),
        ("bilirubin_total", "umol/L", 0.0584673),
        ("urea_nitrogen", "mmol/L", 2.8014),
        ("calcium", "mmol/L", 4.0078),
        ("magnesium", "mmol/L", 2.4305),
        ("phosphate", "mmol/L", 3.0974),
        ("hemoglobin", "mmol/L", 1.61145),
        ("magnesium", "meq/L", 1.21525),
        ("sodium", "meq/L", 1.0),
        ("calcium_ionized", "meq/L", 0.5),
        ("calcium_ionized", "mg/dL", 0.249513),
        ("lactate", "mg/dL", 0.111015),
        ("troponin_t", "ng/L", 0.001),
        ("crp", "mg/dL", 10.0),
        ("wbc", "10*9/L", 1.0),
        ("pao2", "kPa", 7.500617),
        ("fio2", "1", 100.0),
        ("weight", "[lb_av]", 0.45359237),
        ("height", "[in_i]", 2.54),
        ("alt", "ukat/L", 60.0),
        ("uric_acid", "umol/L", 0.0168111),
        ("cholesterol_total", "mmol/L", 38.6664),
        ("triglycerides", "mmol/L", 88.5453),
        ("ammonia", "ug/dL", 0.587165),
        ("urine_sodium", "meq/L", 1.0),
        ("tsh", "u[IU]/mL", 1.0),
        ("norepinephrine_rate", "mg/kg/h", 16.6666667),
        ("vasopressin_rate", "U/min", 60.0),
        ("qtc", "s", 1000.0),
    ],
)
def test_factors_follow_from_the_dictionary(concept: str, source: str, factor: float) -> None:
    assert convert(1.0, source, CONCEPTS[concept]["unit"], concept) == pytest.approx(factor, rel=2e-6)


# The constants that published harmonisations carry as typed numbers. Theirs of creatinine is a molar mass of 113.118, ours
# 113.120 by IUPAC's weights of C4H7N3O; the tolerance of 3e-5 admits such differences of rounded atomic weights.
@pytest.mark.parametrize(
    ("concept", "source", "constant"),
    [
        ("glucose", "mmol/L", 18.0156),
        ("creatinine", "umol/L", 0.0113118),
        ("bilirubin_total", "umol/L", 0.058466),
        ("urea_nitrogen", "mmol/L", 2.80134),
        ("calcium", "mmol/L", 4.0078),
        ("magnesium", "mmol/L", 2.4305),
        ("phosphate", "mmol/L", 3.0974),
        ("hemoglobin", "mmol/L", 1.61145),
    ],
)
def test_published_constants_are_reproduced(concept: str, source: str, constant: float) -> None:
    factor, shift = dictionary.conversion(source, CONCEPTS[concept]["unit"], *_chemistry(concept))
    assert (factor, shift) == (pytest.approx(constant, rel=3e-5), 0.0)


def _chemistry(concept: str) -> tuple[float | None, int | None]:
    row = CONCEPTS[concept]
    return (
        float(row["molar_mass"]) if row["molar_mass"] else None,
        int(row["valence"]) if row["valence"] else None,
    )


@pytest.mark.parametrize(
    ("concept", "source", "why"),
    [
        ("tsh", "10*3/uL", "counts another thing"),
        ("sodium", "mg/dL", "molar mass"),
        ("phosphate", "meq/L", "valence"),
        ("heart_rate", "mg/dL", "dimension"),
        ("gcs_total", "{INR}", "is no"),
    ],
)
def test_what_cannot_be_converted_says_why(concept: str, source: str, why: str) -> None:
    with pytest.raises(dictionary.Inconvertible, match=why):
        dictionary.conversion(source, CONCEPTS[concept]["unit"], *_chemistry(concept))


def seeds_with(folder: Path, file: str, change: dict[str, str], where: dict[str, str]) -> Path:
    """A copy of the seeds in which the row that `where` names was changed."""
    for name in ("concepts", "units", "rescues"):
        content = rows(name)
        if f"{name}.csv" == file:
            content = [row | (change if where.items() <= row.items() else {}) for row in content]
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    return folder


@pytest.mark.parametrize(
    ("file", "change", "where", "parts"),
    [
        (
            "concepts.csv",
            {"plausible_low": "4000"},
            {"concept": "glucose"},
            ["concepts.csv row 12", "lies above", "swap"],
        ),
        (
            "rescues.csv",
            {"low": "200"},
            {"rescue": "fahrenheit_under_celsius"},
            ["rescues.csv row 2", "lies above"],
        ),
        ("rescues.csv", {"unit_from": "kg"}, {"concept": "spo2"}, ["rescues.csv", "does not reach spo2"]),
        (
            "concepts.csv",
            {"molar_mass": ""},
            {"concept": "creatinine"},
            ["does not reach creatinine", "molar mass"],
        ),
        ("units.csv", {"spelling": "mg/dl"}, {"spelling": "mg%"}, ["units.csv", "listed twice"]),
    ],
)
def test_a_seed_that_contradicts_itself_is_named(tmp_path: Path, file, change, where, parts) -> None:
    with pytest.raises(dictionary.DictionaryError) as caught:
        dictionary.check([], seeds_with(tmp_path, file, change, where))
    assert any(all(part in line for part in parts) for line in str(caught.value).splitlines()), caught.value


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        (["labs,1,,glucose,map,,bpm,me,"], ["items.csv row 2", "does not reach glucose", "dimension"]),
        (["labs,1,,urine_protein,map,,mmol/L,me,"], ["row 2", "needs a molar mass"]),
        (
            ["labs,1,,potassium,map,,mmol/L,me,", "labs,1,,sodium,map,,mmol/L,me,"],
            ["row 3", "mapped already", "row 2"],
        ),
        (["labs,1,,glucose,map,,mgs per dl,me,"], ["row 2", "not in units.csv", "add its spelling"]),
        (["labs,1,,glucos,map,,mg/dL,me,"], ["row 2", "not in concepts.csv"]),
    ],
)
def test_a_mapping_that_cannot_work_refuses_to_build(
    tmp_path: Path, lines: list[str], parts: list[str]
) -> None:
    header = "source_table,code,label,concept,decision,reason,unit,mapped_by,note"
    items = tmp_path / "items.csv"
    items.write_text("\n".join([header, *lines]) + "\n")
    with pytest.raises(dictionary.DictionaryError) as caught:
        dictionary.check([items])
    assert any(all(part in line for part in parts) for line in str(caught.value).splitlines()), caught.value


# YAIB's 48 dynamic variables, as its contract names them.
YAIB = [
    "albumin",
    "alkaline_phosphatase",
    "alt",
    "ast",
    "base_excess",
    "bicarbonate",
    "bilirubin_total",
    "bilirubin_direct",
    "bands",
    "urea_nitrogen",
    "calcium",
    "calcium_ionized",
    "ck",
    "ck_mb",
    "chloride",
    "creatinine",
    "crp",
    "dbp",
    "fibrinogen",
    "fio2",
    "glucose",
    "hemoglobin",
    "heart_rate",
    "inr",
    "potassium",
    "lactate",
    "lymphocytes",
    "mbp",
    "mch",
    "mchc",
    "mcv",
    "methemoglobin",
    "magnesium",
    "sodium",
    "neutrophils",
    "spo2",
    "paco2",
    "ph",
    "phosphate",
    "platelets",
    "pao2",
    "ptt",
    "respiratory_rate",
    "sbp",
    "temperature",
    "troponin_t",
    "urine_output",
    "wbc",
]


def test_the_variables_of_yaib_are_concepts() -> None:
    assert len(YAIB) == 48
    assert set(YAIB) <= set(CONCEPTS)


def test_every_shipped_mapping_can_work() -> None:
    dictionary.check(sorted((Path(dictionary.REPOSITORY) / "orchestration").rglob("items.csv")))


@pytest.mark.parametrize("concept", sorted(CONCEPTS))
def test_the_warehouse_converts_as_this_test_does(concept: str) -> None:
    offered = [row for row in dictionary.conversions() if row["concept"] == concept]
    assert CONCEPTS[concept]["unit"] in {row["unit_from"] for row in offered}
    for row in offered:
        if not row["unit_from"].startswith("{"):
            expected = convert(7.0, row["unit_from"], CONCEPTS[concept]["unit"], concept)
            assert row["factor"] * 7.0 + row["shift"] == pytest.approx(expected, rel=1e-9)


def test_fahrenheit_to_celsius() -> None:
    assert convert(98.6, "[degF]", "Cel", "temperature") == pytest.approx(37.0, rel=1e-9)


@pytest.mark.parametrize(
    ("concept", "atoms"),
    [
        ("glucose", {"C": 6, "H": 12, "O": 6}),
        ("creatinine", {"C": 4, "H": 7, "N": 3, "O": 1}),
        ("bilirubin_total", {"C": 33, "H": 36, "N": 4, "O": 6}),
        ("bilirubin_direct", {"C": 33, "H": 36, "N": 4, "O": 6}),
        ("lactate", {"C": 3, "H": 6, "O": 3}),
        ("urea_nitrogen", {"N": 2}),
        ("urine_urea_nitrogen", {"N": 2}),
        ("urine_creatinine", {"C": 4, "H": 7, "N": 3, "O": 1}),
        ("bilirubin_indirect", {"C": 33, "H": 36, "N": 4, "O": 6}),
        ("uric_acid", {"C": 5, "H": 4, "N": 4, "O": 3}),
        ("ammonia", {"N": 1, "H": 3}),
        ("triglycerides", {"C": 57, "H": 104, "O": 6}),
        ("cholesterol_total", {"C": 27, "H": 46, "O": 1}),
        ("cholesterol_hdl", {"C": 27, "H": 46, "O": 1}),
        ("cholesterol_ldl", {"C": 27, "H": 46, "O": 1}),
        ("free_t4", {"C": 15, "H": 11, "I": 4, "N": 1, "O": 4}),
        ("cortisol", {"C": 21, "H": 30, "O": 5}),
        ("vitamin_b12", {"C": 63, "H": 88, "Co": 1, "N": 14, "O": 14, "P": 1}),
        ("folate", {"C": 19, "H": 19, "N": 7, "O": 6}),
        ("vancomycin", {"C": 66, "H": 75, "Cl": 2, "N": 9, "O": 24}),
        ("digoxin", {"C": 41, "H": 64, "O": 14}),
        ("phenytoin", {"C": 15, "H": 12, "N": 2, "O": 2}),
        ("tacrolimus", {"C": 44, "H": 69, "N": 1, "O": 12}),
        ("iron", {"Fe": 1}),
        ("iron_binding_capacity", {"Fe": 1}),
    ],
)
def test_molar_masses_are_sums_of_atomic_masses(concept: str, atoms: dict[str, int]) -> None:
    """IUPAC's abridged standard atomic weights."""
    masses = {
        "C": 12.011, "H": 1.008, "N": 14.007, "O": 15.999, "P": 30.974, "Cl": 35.45, "Fe": 55.845, "Co": 58.933, "I": 126.904
    }  # fmt: skip
    total = sum(masses[atom] * count for atom, count in atoms.items())
    assert float(CONCEPTS[concept]["molar_mass"]) == pytest.approx(total, rel=3e-5)


@pytest.mark.parametrize("concept", sorted(CONCEPTS))
def test_bounds_are_ordered(concept: str) -> None:
    row = CONCEPTS[concept]
    low, high = float(row["plausible_low"]), float(row["plausible_high"])
    assert low < high
    assert bool(row["normal_low"]) == bool(row["normal_high"])
    if row["normal_low"]:
        assert low <= float(row["normal_low"]) <= float(row["normal_high"]) <= high


@pytest.mark.parametrize("rescue", RESCUES, ids=lambda row: row["rescue"])
def test_a_rescue_touches_no_good_value_and_gives_a_plausible_one(rescue: dict[str, str]) -> None:
    row = CONCEPTS[rescue["concept"]]
    plausible_low, plausible_high = float(row["plausible_low"]), float(row["plausible_high"])
    low, high = float(rescue["low"]), float(rescue["high"])
    for written in (low, high):
        rescued = convert(written, rescue["unit_from"], row["unit"], rescue["concept"])
        assert plausible_low <= rescued <= plausible_high
    if unit(rescue["declared_unit"]).dimensionality == unit(row["unit"]).dimensionality:
        declared_unit = rescue["declared_unit"]
        as_declared = [
            convert(written, declared_unit, row["unit"], rescue["concept"]) for written in (low, high)
        ]
        assert as_declared[1] < plausible_low or as_declared[0] > plausible_high


@pytest.mark.parametrize("concept", sorted(name for name, row in CONCEPTS.items() if row["loinc"]))
def test_loinc_codes_carry_their_check_digit(concept: str) -> None:
    digits, check = CONCEPTS[concept]["loinc"].split("-")
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(digits))]
    assert int(check) == -sum(n - 9 if n > 9 else n for n in doubled) % 10


def test_a_loinc_code_means_one_concept_in_every_layout_and_in_the_dictionary() -> None:
    meant = {row["loinc"]: {concept} for concept, row in CONCEPTS.items() if row["loinc"]}
    for file in sorted((dictionary.REPOSITORY / "orchestration" / "schemas").glob("*/items.csv")):
        for row in dictionary.read_csv(file):
            if re.fullmatch(r"\d{1,5}-\d", row["code"]):
                meant.setdefault(row["code"], set()).add(row["concept"])
    assert not {code: concepts for code, concepts in meant.items() if len(concepts) > 1}


def test_the_dictionary_is_large_enough() -> None:
    assert len(CONCEPTS) >= 120
