"""items.csv: what each local code of a hospital means, or why it is ignored; every row is checked when it is read."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestration import catalog
from orchestration.wording import LayoutError, near, relative

SEEDS = catalog.REPOSITORY / "dbt_project" / "seeds"
ITEMS_HEADER = ["source_table", "code", "label", "concept", "decision", "reason", "unit", "mapped_by", "note"]
REPORT_HEADER = [
    "hospital",
    *ITEMS_HEADER,
    "rows",
]  # harmonised/unmapped, the work queue, may be pasted as it is
IGNORE_REASONS = (
    "text_only",
    "duplicate_of_other_item",
    "setting_not_measurement",
    "not_clinical",
    "not_in_dictionary_yet",
    "wrong_site",
    "alarm_limit",
)


@dataclass(frozen=True)
class Item:
    """One decided row of an items.csv and where it stands."""

    values: dict[str, str]
    row_id: str

    @property
    def key(self) -> tuple[str, str]:
        return self.values["source_table"], self.values["code"]


def load_items(files: Iterable[Path]) -> list[Item]:
    merged: dict[tuple[str, str], Item] = {}
    for file in files:
        merged.update({item.key: item for item in _items_of(file)})
    return sorted(merged.values(), key=lambda item: item.key)


def read(file: Path) -> list[dict[str, str]]:
    """The rows of an items.csv as text. Raises LayoutError for a header or a row of another form."""
    name = relative(file)
    with file.open(newline="", encoding="utf-8") as lines:
        reader = csv.reader(lines)
        if next(reader, []) not in (ITEMS_HEADER, REPORT_HEADER):
            raise LayoutError(f"{name}: line 1: the header must be {','.join(ITEMS_HEADER)}")
        return [
            dict(
                zip(ITEMS_HEADER, _own_fields(fields, f"{name}: row {number}", file.parent.name), strict=True)
            )
            for number, fields in enumerate(filter(None, reader), start=1)
        ]


def _items_of(file: Path) -> list[Item]:
    name = relative(file)
    concepts, spellings = (
        _seed("concepts.csv", "concept"),
        {_squeezed(u) for u in _seed("units.csv", "spelling")},
    )
    items: dict[tuple[str, str], Item] = {}
    for number, values in enumerate(read(file), start=1):
        where = f"{name}: row {number}"
        item = Item(values, f"{file.parent.name}/items.csv:{number}")
        _item_is_decided(values, where, concepts, spellings)
        if item.key in items:
            raise LayoutError(f"{where}: maps {'/'.join(item.key)} a second time; keep one of the two rows")
        items[item.key] = item
    return list(items.values())


def _own_fields(fields: list[str], where: str, hospital: str) -> list[str]:
    """The fields of a row, without the two that a line of the unmapped report has around them."""
    fields = [field.strip() for field in fields]
    if len(fields) == len(REPORT_HEADER):
        if fields[0] != hospital:
            raise LayoutError(
                f"{where}: is a line of the work queue of another hospital than {hospital}; remove it"
            )
        return fields[1:-1]
    if len(fields) != len(ITEMS_HEADER):
        raise LayoutError(f"{where}: has not {len(ITEMS_HEADER)} fields; quote texts that hold commas")
    return fields


def _item_is_decided(values: dict[str, str], where: str, concepts: set[str], spellings: set[str]) -> None:
    decision, concept, reason, unit = (values[k] for k in ("decision", "concept", "reason", "unit"))
    if not values["source_table"] or not values["code"]:
        raise LayoutError(f"{where}: source_table and code must both be there")
    if decision not in ("map", "ignore", ""):
        raise LayoutError(
            f"{where}: decision {decision!r} is none of map, ignore or empty; {near(decision, ['map', 'ignore'])}"
        )
    if decision == "map" and concept not in concepts:
        raise LayoutError(
            f"{where}: concept {concept!r} is not in dbt_project/seeds/concepts.csv; {near(concept, concepts)}"
        )
    if decision != "map" and concept:
        raise LayoutError(f"{where}: concept {concept!r} needs decision map; set it, or leave concept empty")
    if decision == "ignore" and reason not in IGNORE_REASONS:
        raise LayoutError(
            f"{where}: reason {reason!r} is not in the closed list; {near(reason, IGNORE_REASONS)}"
        )
    if decision != "ignore" and reason:
        raise LayoutError(f"{where}: reason {reason!r} needs decision ignore; set it, or leave reason empty")
    if unit and _squeezed(unit) not in spellings:
        raise LayoutError(
            f"{where}: unit {unit!r} is not in dbt_project/seeds/units.csv; {near(unit, spellings)}"
        )


def check_source_tables(written: set[str], items: Iterable[Item]) -> None:
    """Where every measurement source names its source_table as a literal, items must name one of these."""
    if not all(re.fullmatch(r"'[^']*'", sql) for sql in written):
        return
    known = {sql[1:-1] for sql in written}
    for item in items:
        if item.values["source_table"] not in known:
            hint = near(item.values["source_table"], known)
            raise LayoutError(
                f"{item.row_id}: no source has source_table {item.values['source_table']!r}; {hint}"
            )


def _seed(file: str, column: str) -> set[str]:
    with (SEEDS / file).open(newline="", encoding="utf-8") as lines:
        return {row[column] for row in csv.DictReader(lines)}


def _squeezed(unit: str) -> str:
    return re.sub(r"\s+", "", unit).lower()
