"""A patient's record as text at each prediction time, in one pass over what became known.

A serialiser makes a `Record` that grows event by event, in the order of available_at, and can be read at any time in
between. An event that is known after the prediction time has not been added when the text is made, so that it cannot change
it; end_at is not read at all: that a visit or an infusion has ended is an event of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import polars as pl

COLUMNS = [
    "visit_id", "event_at", "available_at", "kind", "code", "concept", "value", "unit", "text", "row_id",
]  # fmt: skip
PATIENT = ["hospital", "patient_id"]
IN_ORDER = ["available_at", "event_at", "kind", "row_id", "text", "value"]
MEASURED = frozenset({"lab", "vital", "output", "score"})
HOUR = timedelta(hours=1)
BLOCK = 500_000  # events that are held as Python's objects at once
Event = tuple[str | None, datetime, datetime, str, str | None, str | None, float | None, str | None, str, str]
KNOWN = COLUMNS.index("available_at")


class Record(Protocol):
    """What is known of one patient so far."""

    def add(self, event: Event) -> None:
        """The next thing that became known."""

    def text(self, now: datetime) -> str:
        """The record, as it is read at `now`, within the serialiser's budget."""


class Serialiser(Protocol):
    """A way to write records down; its settings and fitted state are frozen."""

    name: str

    def record(self) -> Record:
        """An empty record."""


class Costs:
    """How many tokens a piece takes, asked of the tokenizer once a piece. Serialisers take one a character for numbers,
    which no tokenizer exceeds, and cut pieces at spaces and line ends, where tokenizers do not join."""

    def __init__(self, count: Callable[[str], int]):
        self._count, self._known = count, {}

    def __call__(self, piece: str) -> int:
        cost = self._known.get(piece)
        if cost is None:
            cost = self._known[piece] = self._count(piece)
        return cost


def read(serialiser: Serialiser, events: Sequence[Event], times: Sequence[datetime]) -> list[str]:
    """One text a time. events: of one patient, in the order of IN_ORDER; times: rising, [n]."""
    record, texts, i = serialiser.record(), [], 0
    for now in times:
        while i < len(events) and events[i][KNOWN] <= now:
            record.add(events[i])
            i += 1
        texts.append(record.text(now))
    return texts


def serialise(serialiser: Serialiser, events: pl.DataFrame, rows: pl.DataFrame) -> list[str]:
    """One text a row, in the order of `rows` (hospital, patient_id, prediction_at; [n]); equal rows are made once.

    events: the columns of harmonised/events, in any order.
    """
    asked = rows.select(*PATIENT, "prediction_at").unique().sort(*PATIENT, "prediction_at")
    made = []
    for mine, times in by_patient(events, asked):
        made += read(serialiser, mine, times)
    told = asked.with_columns(pl.Series("record", made, pl.String))
    return rows.join(told, on=[*PATIENT, "prediction_at"], how="left", maintain_order="left")[
        "record"
    ].to_list()


def by_patient(events: pl.DataFrame, asked: pl.DataFrame) -> Iterator[tuple[list[Event], list[datetime]]]:
    """Events and times of each patient of `asked`, which is sorted by patient and time."""
    people = asked.select(PATIENT).unique()
    mine = events.join(people, on=PATIENT, how="semi").sort(*PATIENT, *IN_ORDER, nulls_last=True)
    start, place = 0, {}
    for *person, count in mine.group_by(PATIENT, maintain_order=True).len().iter_rows():
        place[tuple(person)] = start, start + count
        start += count
    block, first = [], 0
    for *person, times in asked.group_by(PATIENT, maintain_order=True).agg("prediction_at").iter_rows():
        start, end = place.get(tuple(person), (0, 0))
        if end > first + len(block):
            block, first = mine.slice(start, max(BLOCK, end - start)).select(COLUMNS).rows(), start
        yield block[start - first : end - first] if end else [], times


def number(value: float, digits: int = 2) -> str:
    """At most `digits` decimals, no trailing zeros."""
    shown = f"{value:.{digits}f}"
    if "." in shown:
        shown = shown.rstrip("0").rstrip(".")
    return "0" if shown == "-0" else shown


def span(length: timedelta) -> str:
    """A length of time in one whole unit, rounded down; never negative."""
    hours = length // HOUR
    if hours < 48:
        return f"{max(hours, 0)} h"
    if hours < 24 * 60:
        return f"{hours // 24} days"
    return f"{hours // 720} months" if hours < 24 * 730 else f"{hours // 8760} years"


def is_normal(value: float, low: float | None, high: float | None) -> str | None:
    """`low`, `normal` or `high`; None where there is no range."""
    if low is None and high is None:
        return None
    if low is not None and value < low:
        return "low"
    return "high" if high is not None and value > high else "normal"


def admitted(text: str) -> tuple[str, str | None]:
    """Type of visit and sex, of the text of an admission."""
    kind, _, sex = text.removeprefix("admission: ").partition(", ")
    return kind, sex or None
