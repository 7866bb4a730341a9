"""Operators about time: how long something lasted, what held at an hour, how far two things lay apart.

Candidates have the columns that lookups.py describes.
"""

from __future__ import annotations

import polars as pl

from ray_jobs.questions.facts import Facts
from ray_jobs.questions.lookups import ITEM
from ray_jobs.questions.reasoning import starts
from ray_jobs.questions.template import Template


def extreme_time(template: Template, facts: Facts) -> pl.DataFrame:
    """The hour of the highest or lowest value, if one value alone is. Shortcut last_time: the hour of the last value."""
    rows = facts.of(template.subject).drop_nulls("value").filter(pl.col("hour") >= 0)
    value = pl.col("value")
    best = (value.max() if template.statistic == "max" else value.min()).over("rec", "item")
    marked = rows.with_columns(
        shortcut_value=pl.col("at").last().over("rec", "item"), n=pl.len().over("rec", "item")
    )
    alone = marked.filter(value == best).filter((pl.len().over("rec", "item") == 1) & (pl.col("n") >= 2))
    return alone.with_columns(value=pl.col("at"), at=None, evidence=pl.concat_list("row_id"))


def duration(template: Template, facts: Facts) -> pl.DataFrame:
    """Hours from an item's first fact to its first end (the subject named by `drug`), if it ran once."""
    rows = _runs(template, facts).filter(pl.col("runs") == 1).drop_nulls("stop")
    return rows.with_columns(
        value=pl.col("stop") - pl.col("start"), evidence=pl.concat_list("start_id", "stop_id")
    )


def running_at(template: Template, facts: Facts) -> pl.DataFrame:
    """Whether an item that had been started was still running at an hour, yes or no, of items that ran once.

    The hours that may be asked about lie half-way between start and end, and half-way from the end to the record's end.
    Shortcut was_started: always yes.
    """
    rows = _runs(template, facts).filter(pl.col("runs") == 1).drop_nulls("stop")
    rows = rows.join(facts.end.drop("key"), on="rec", maintain_order="left")
    start, stop, end = pl.col("start"), pl.col("stop"), pl.col("end")
    parts = [
        rows.with_columns(at=(start + stop) / 2, word=pl.lit("yes")),
        rows.filter(end > stop + 1).with_columns(at=(stop + end) / 2, word=pl.lit("no")),
    ]
    asked = pl.concat(parts).filter((stop - start > 0.5) & (start >= 0))
    return asked.with_columns(
        at=pl.col("at").round(1), shortcut_word=pl.lit("yes"), evidence=pl.concat_list("start_id", "stop_id")
    )


def state_at(template: Template, facts: Facts) -> pl.DataFrame:
    """Which item of the subject held at an hour: the last that came before it. Shortcut last_item: the record's last.

    The hours that may be asked about lie half-way to the next item, or to the record's end.
    """
    rows = facts.of(template.subject).filter(pl.col("hour") >= 0)
    rows = rows.join(facts.end.drop("key"), on="rec", maintain_order="left")
    following = pl.col("hour").shift(-1).over("rec")
    spans = rows.with_columns(
        until=following.fill_null(pl.col("end")),
        shortcut_word=pl.col("item").last().over("rec"),
        units=pl.col("item").n_unique().over("rec"),
    ).filter((pl.col("until") - pl.col("hour") > 0.5) & (pl.col("units") > 1))
    return spans.with_columns(
        at=((pl.col("hour") + pl.col("until")) / 2).round(1),
        word=pl.col("item"),
        item=pl.lit(""),
        value=None,
        evidence=pl.concat_list("row_id"),
    )


def span_of(template: Template, facts: Facts) -> pl.DataFrame:
    """Hours from an item to the next item of the subject, of items that came once (the length of a stay in a care unit)."""
    rows = facts.of(template.subject).filter(pl.col("hour") >= 0)
    after = rows.with_columns(
        until=pl.col("hour").shift(-1).over("rec"),
        next_id=pl.col("row_id").shift(-1).over("rec"),
        times=pl.len().over("rec", "item"),
    ).filter((pl.col("times") == 1) & (pl.col("until") > pl.col("hour")))
    return after.with_columns(
        value=pl.col("until") - pl.col("hour"), at=None, evidence=pl.concat_list("row_id", "next_id")
    )


def gap(template: Template, facts: Facts) -> pl.DataFrame:
    """Hours from the first fact of an item to the first later one of another (`other`, of the subject named by `drug`)."""
    firsts = starts(facts.of(template.subject))
    others = starts(facts.of(template.drug)).select("rec", other="item", began="start", other_id="start_id")
    pairs = firsts.join(others, on="rec", maintain_order="left_right").filter(
        (pl.col("began") > pl.col("start")) & (pl.col("other") != pl.col("item")) & (pl.col("start") >= 0)
    )
    return pairs.with_columns(
        value=pl.col("began") - pl.col("start"), evidence=pl.concat_list("start_id", "other_id")
    )


def previous_item(template: Template, facts: Facts) -> pl.DataFrame:
    """Which other item of the subject named by `drug` was the last to start before an item's first fact, if one alone was.

    Shortcut first_item: the record's first.
    """
    firsts = starts(facts.of(template.subject))
    others = starts(facts.of(template.drug)).select("rec", word="item", began="start", other_id="start_id")
    first = others.sort("rec", "began", maintain_order=True).group_by("rec", maintain_order=True)
    pairs = firsts.join(others, on="rec", maintain_order="left_right").filter(
        (pl.col("began") < pl.col("start")) & (pl.col("word") != pl.col("item"))
    )
    nearest = pairs.filter(pl.col("began") == pl.col("began").max().over(ITEM)).filter(
        pl.len().over(ITEM) == 1
    )
    joined = nearest.join(first.agg(shortcut_word=pl.col("word").first()), on="rec", maintain_order="left")
    return joined.with_columns(evidence=pl.concat_list("start_id", "other_id"))


def _runs(template: Template, facts: Facts) -> pl.DataFrame:
    """An item's first start, how often it started, and its first end after that (null while it runs)."""
    begun = facts.of(template.subject)
    ends = facts.of(template.drug).select("rec", "item", stop="hour", stop_id="row_id")
    first = starts(begun).join(
        begun.group_by("rec", "item").agg(runs=pl.len()), on=["rec", "item"], maintain_order="left"
    )
    pairs = first.join(ends, on=["rec", "item"], how="left", maintain_order="left_right")
    later = pairs.with_columns(
        pl.when(pl.col("stop") > pl.col("start")).then(pl.col(c)).alias(c) for c in ("stop", "stop_id")
    )
    return later.sort("rec", "item", "stop", nulls_last=True, maintain_order=True).unique(
        ["rec", "item"], keep="first", maintain_order=True
    )


OPERATORS = {
    "extreme_time": extreme_time,
    "duration": duration,
    "running_at": running_at,
    "state_at": state_at,
    "span_of": span_of,
    "gap": gap,
    "previous_item": previous_item,
}
