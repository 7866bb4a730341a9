"""Which concept an observed item may be: ranked by its label, its unit and where its values lie. A guess decides nothing.

Labels are compared with the dictionary's and with every label that a shipped items.csv maps, so each hospital that was
mapped makes the next one's guesses better.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from functools import cache

from orchestration import dictionary, items_csv
from orchestration.profiling import Seen

LABEL, UNIT, VALUES = 0.6, 0.15, 0.25  # what each part of the evidence weighs
LOINC = r"[0-9]{1,5}-[0-9]"
LEAST = 0.45  # a guess below this is not shown


def ranked(item: Seen, most: int = 3) -> list[tuple[str, float]]:
    """(concept, score from 0 to 1), the likeliest first. A LOINC code that the dictionary or a layout has is certain."""
    concepts, known = _dictionary()
    if item.code in known["loinc"]:
        return [(next(iter(known["loinc"][item.code])), 1.0)]
    scores = {name: _score(item, row, known["words"][name]) for name, row in concepts.items()}
    best = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    return [(name, round(score, 2)) for name, score in best if score >= LEAST]


def _score(item: Seen, concept: dict[str, str], labels: set[str]) -> float:
    names = {_plain(item.label), _plain(item.code)} - {""}
    label = max((_alike(name, other) for name in names for other in labels), default=0.0)
    reached = [_reached(item, unit, concept["concept"]) for unit in _ucum(item) or {concept["unit"]}]
    fits = [values for values in reached if values is not None]
    values = max(map(_plausible(concept), fits), default=0.0)
    return LABEL * label + UNIT * bool(fits and item.units) + VALUES * values


def _alike(one: str, other: str) -> float:
    if one == other:
        return 1.0
    mine, theirs = set(one.split()), set(other.split())
    shared = len(mine & theirs) / len(mine | theirs)
    if not shared and one[:3] != other[:3]:
        return 0.0
    return max(shared, difflib.SequenceMatcher(None, one, other, autojunk=False).ratio())


def _plausible(concept: dict[str, str]):
    low, high = float(concept["plausible_low"]), float(concept["plausible_high"])
    usual = (
        (float(concept["normal_low"]), float(concept["normal_high"]))
        if concept["normal_low"]
        else (low, high)
    )

    def share(values: tuple[float, ...]) -> float:
        """Half for lying within the bounds, half for a range that meets the reference range."""
        if not values:
            return 0.0
        inside = sum(low <= value <= high for value in values) / len(values)
        return 0.5 * inside + 0.5 * (values[0] <= usual[1] and values[-1] >= usual[0])

    return share


def _reached(item: Seen, unit: str, concept: str) -> tuple[float, ...] | None:
    """The item's quantiles in the concept's unit; empty if none are known, None if the unit does not lead there."""
    found = _conversions().get((concept, unit))
    if found is None:
        return None
    factor, shift = found
    return tuple(value * factor + shift for value in item.quantiles or ())


def _ucum(item: Seen) -> set[str]:
    spellings = _spellings()
    return {spellings[dictionary.spelled(u)] for u in item.units if dictionary.spelled(u) in spellings}


def is_known(unit: str) -> bool:
    """Whether seeds/units.csv lists this spelling."""
    return dictionary.spelled(unit) in _spellings()


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


@cache
def _conversions() -> dict[tuple[str, str], tuple[float, float]]:
    return {
        (row["concept"], row["unit_from"]): (row["factor"], row["shift"]) for row in dictionary.conversions()
    }


@cache
def _spellings() -> dict[str, str]:
    return {row["spelling"]: row["ucum"] for row in dictionary.read_csv(dictionary.SEEDS / "units.csv")}


@cache
def _dictionary() -> tuple[dict[str, dict[str, str]], dict[str, dict[str, set[str]]]]:
    """The concepts by name, and by LOINC code and name all that is known to mean them."""
    concepts = {row["concept"]: row for row in dictionary.read_csv(dictionary.SEEDS / "concepts.csv")}
    known: dict[str, dict[str, set[str]]] = {"loinc": defaultdict(set), "words": defaultdict(set)}
    for name, row in concepts.items():
        known["words"][name] |= {_plain(name.replace("_", " ")), _plain(row["label"])}
        if row["loinc"]:
            known["loinc"][row["loinc"]].add(name)
    for file in sorted((dictionary.REPOSITORY / "orchestration").rglob("items.csv")):
        for row in items_csv.read(file):
            if row["decision"] == "map" and row["concept"] in concepts and row["label"]:
                known["words"][row["concept"]].add(_plain(row["label"]))
            if row["decision"] == "map" and re.fullmatch(LOINC, row["code"]):
                known["loinc"][row["code"]].add(row["concept"])
    return concepts, known
