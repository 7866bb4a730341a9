"""Facts: the visible events that a question speaks of, with the words in which it speaks of them.

A subject (`templates/subjects.yaml`) names kinds of events and two patterns over an event's text: `item`, what the event
is about, and `word`, what else can be asked of it (the route, the organism, the sex). Text that fits no pattern is no fact.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ray_jobs.questions.record import Records

KEYS = ["rec", "key"]


@dataclass(frozen=True)
class Subject:
    """Which events, and how to read their text. Patterns have one group; without `item` all events are one item, ''.
    `items` keeps only those."""

    kinds: tuple[str, ...]
    item: str | None = None
    word: str | None = None
    items: tuple[str, ...] = ()


class Facts:
    """The facts of each subject over one set of records, made once and kept.

    Columns of a subject: rec, key, item, word, concept, unit, value, hour (hours since admission), at (hour printed to
    one decimal), digits, normal_low, normal_high, row_id; in the order of time.
    """

    def __init__(self, records: Records, subjects: dict[str, Subject], concepts: pl.DataFrame):
        limits = concepts.select("concept", "digits", "normal_low", "normal_high")
        self._visible = records.visible.join(limits, on="concept", how="left", maintain_order="left")
        self._subjects = subjects
        self._made: dict[str, pl.DataFrame] = {}
        self.end = records.visible.group_by("rec", "key").agg(end=pl.col("hour").max()).sort("rec")

    def of(self, name: str) -> pl.DataFrame:
        if name not in self._made:
            self._made[name] = self._make(self._subjects[name])
        return self._made[name]

    def _make(self, subject: Subject) -> pl.DataFrame:
        text = pl.col("text")
        item = text.str.extract(subject.item, 1) if subject.item else pl.lit("")
        word = text.str.extract(subject.word, 1) if subject.word else pl.lit(None, pl.String)
        rows = self._visible.filter(pl.col("kind").is_in(subject.kinds))
        rows = rows.with_columns(item=item.str.strip_chars(), word=word.str.strip_chars()).drop_nulls("item")
        if subject.items:
            rows = rows.filter(pl.col("item").is_in(subject.items))
        return (
            rows.with_columns(at=pl.col("hour").round(1))
            .drop("kind", "text", "event_at")
            .unique(["rec", "item", "word", "hour", "value", "row_id"], keep="first", maintain_order=True)
        )


def period_of(name: str) -> tuple[pl.Expr, str]:
    """A period's condition on `hour` and its words: `all`, `first_<h>` (hours since admission) or `after_<h>`."""
    if name == "all":
        return pl.lit(True), ""
    side, _, hours = name.partition("_")
    if side not in ("first", "after") or not hours.isdigit():
        raise ValueError(f"unknown period '{name}'; use all, first_<hours> or after_<hours>")
    if side == "first":
        return pl.col("hour") < int(hours), f" in the first {hours} hours"
    return pl.col("hour") >= int(hours), f" after hour {hours}"
