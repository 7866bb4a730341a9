"""Operators of schema alignment: each reads one subject's facts and returns every question that could be asked.

A candidate row has rec, key, item, the wording's slots (at, period, ...), the answer (`value`, a number or an hour, or
`word`), `evidence` (row_ids), what a shortcut rule would say (`shortcut_value` or `shortcut_word`), concept and unit
where the answer is a measurement, and of some operators `values` or `hours` on which the answer rests, as a working. Which candidates are asked is decided elsewhere (choose.py).
"""

from __future__ import annotations

import polars as pl

from ray_jobs.questions.facts import Facts, period_of
from ray_jobs.questions.template import Template

ITEM = ["rec", "key", "item"]
MEASURE = ["concept", "unit", "digits", "normal_low", "normal_high"]


def value_at(template: Template, facts: Facts) -> pl.DataFrame:
    """The value at an hour, if the item has one value at that printed hour. Shortcut last_value: the item's last one."""
    rows = facts.of(template.subject).drop_nulls("value").filter(pl.col("at") >= 0)
    return (
        rows.with_columns(shortcut_value=pl.col("value").last().over("rec", "item"))
        .filter(pl.len().over("rec", "item", "at") == 1)
        .with_columns(evidence=pl.concat_list("row_id"))
    )


def value_end(template: Template, facts: Facts) -> pl.DataFrame:
    """The first or last value of an item. Shortcut other_end: the value at the other end."""
    rows = _ends(facts.of(template.subject).drop_nulls("value"), template.end)
    return rows.rename({"other_value": "shortcut_value"})


def time_end(template: Template, facts: Facts) -> pl.DataFrame:
    """The hour of an item's first or last fact. Shortcut other_end: the hour at the other end."""
    rows = _ends(facts.of(template.subject).filter(pl.col("hour") >= 0), template.end)
    return rows.with_columns(value=pl.col("at"), shortcut_value=pl.col("other_at"), at=None)


def item_end(template: Template, facts: Facts) -> pl.DataFrame:
    """Which item is first or last, if one alone is. Shortcut other_end: the item at the other end."""
    rows = _ends(facts.of(template.subject).with_columns(word=pl.col("item"), item=pl.lit("")), template.end)
    return rows.rename({"other_word": "shortcut_word"})


def item_at(template: Template, facts: Facts) -> pl.DataFrame:
    """Which item has a fact at an hour, if one alone has. Shortcut last_item: the record's last one."""
    rows = facts.of(template.subject).filter(pl.col("at") >= 0)
    return (
        rows.with_columns(
            word=pl.col("item"), shortcut_word=pl.col("item").last().over("rec"), item=pl.lit("")
        )
        .filter(pl.len().over("rec", "at") == 1)
        .with_columns(evidence=pl.concat_list("row_id"))
    )


def attribute(template: Template, facts: Facts) -> pl.DataFrame:
    """What else an item's text says (route, organism, sex) or the number it carries (age), if it is one thing."""
    told = "value" if template.answer == "number" else "word"
    rows = facts.of(template.subject).drop_nulls(told)
    one = rows.group_by(ITEM, maintain_order=True).agg(
        pl.col("word", "value", *MEASURE).first(), evidence=pl.col("row_id"), n=pl.col(told).n_unique()
    )
    return one.filter(pl.col("n") == 1)


def count(template: Template, facts: Facts) -> pl.DataFrame:
    """How often an item is charted in a period, at least once. Shortcut whole_record: the count without the period."""
    number = pl.len().cast(pl.Float64)
    return _in_periods(template, facts, number, number, pl.col("row_id"))


def extreme(template: Template, facts: Facts) -> pl.DataFrame:
    """A statistic of the values in a period, of two or more. Shortcut last_value: the item's last value."""
    value, row_id = pl.col("value"), pl.col("row_id")
    spread = template.statistic == "range"
    answer = value.max() - value.min() if spread else getattr(value, template.statistic)()
    told_by = row_id.filter(value == answer) if template.statistic in ("max", "min") else row_id
    rows = _in_periods(template, facts, answer, value.last(), told_by)
    return rows.filter(pl.col("n") >= 2)


def exists(template: Template, facts: Facts) -> pl.DataFrame:
    """Whether an item of the record has a fact in a period, yes or no. Shortcut seen_at_all: always yes."""
    rows = facts.of(template.subject)
    items = rows.select(*ITEM).unique(maintain_order=True)
    found = []
    for name in template.periods:
        condition, words = period_of(name)
        inside = rows.filter(condition).group_by(ITEM, maintain_order=True).agg(evidence=pl.col("row_id"))
        found.append(
            items.join(inside, on=ITEM, how="left", maintain_order="left").with_columns(period=pl.lit(words))
        )
    return pl.concat(found).with_columns(
        word=pl.when(pl.col("evidence").is_null()).then(pl.lit("no")).otherwise(pl.lit("yes")),
        evidence=pl.col("evidence").fill_null([]),
        shortcut_word=pl.lit("yes"),
    )


def known(template: Template, facts: Facts) -> pl.DataFrame:
    """Whether an item of the template's pool is in the record at all, yes or no. Shortcut always_no."""
    inside = facts.of(template.subject).group_by(ITEM, maintain_order=True).agg(evidence=pl.col("row_id"))
    pool = pl.DataFrame({"item": template.pool}, schema={"item": pl.String})
    asked = (
        facts.end.select("rec", "key")
        .join(pool, how="cross")
        .join(inside, on=ITEM, how="left", maintain_order="left")
    )
    return asked.with_columns(
        word=pl.when(pl.col("evidence").is_null()).then(pl.lit("no")).otherwise(pl.lit("yes")),
        evidence=pl.col("evidence").fill_null([]),
        shortcut_word=pl.lit("no"),
    )


def status_at(template: Template, facts: Facts) -> pl.DataFrame:
    """Low, normal or high at an hour. Shortcut last_status: what the item's last value is."""
    rows = with_status(facts.of(template.subject)).filter(pl.col("at") >= 0)
    return (
        rows.with_columns(shortcut_word=pl.col("word").last().over("rec", "item"))
        .filter(pl.len().over("rec", "item", "at") == 1)
        .with_columns(evidence=pl.concat_list("row_id"), values=pl.concat_list("value"))
    )


def status_end(template: Template, facts: Facts) -> pl.DataFrame:
    """Low, normal or high at the first or last value. Shortcut other_end: at the other end."""
    rows = _ends(with_status(facts.of(template.subject)), template.end)
    return rows.rename({"other_word": "shortcut_word"}).with_columns(values=pl.concat_list("value"))


def with_status(rows: pl.DataFrame) -> pl.DataFrame:
    """`word` = low, normal or high by the dictionary's limits; facts without limits are left out."""
    value, low, high = pl.col("value"), pl.col("normal_low"), pl.col("normal_high")
    return rows.drop_nulls(["value", "normal_low", "normal_high"]).with_columns(
        word=pl.when(value < low)
        .then(pl.lit("low"))
        .when(value > high)
        .then(pl.lit("high"))
        .otherwise(pl.lit("normal"))
    )


def _ends(rows: pl.DataFrame, end: str) -> pl.DataFrame:
    """An item's first or last row and, as `other_*`, what stands at the other end; ends that are not one row are left out."""
    here, there = ("first", "last") if end == "first" else ("last", "first")
    edge = pl.col("hour").min() if end == "first" else pl.col("hour").max()
    columns = ["value", "word", "at", *MEASURE]
    ends = rows.group_by(ITEM, maintain_order=True).agg(
        *[getattr(pl.col(c), here)() for c in columns],
        *[getattr(pl.col(c), there)().alias(f"other_{c}") for c in ("value", "word", "at")],
        n=(pl.col("hour") == edge).sum(),
        evidence=getattr(pl.col("row_id"), here)(),
    )
    return ends.filter(pl.col("n") == 1).with_columns(evidence=pl.concat_list("evidence"))


def _in_periods(
    template: Template, facts: Facts, answer: pl.Expr, shortcut: pl.Expr, told_by: pl.Expr
) -> pl.DataFrame:
    """The answer over each period of each item; a period is asked about only where it leaves something out."""
    rows = facts.of(template.subject)
    rows = rows.drop_nulls("value") if template.operator == "extreme" else rows
    whole = rows.group_by(ITEM).agg(shortcut_value=shortcut, of=pl.len())
    found = []
    for name in template.periods:
        condition, words = period_of(name)
        inside = rows.filter(condition).group_by(ITEM, maintain_order=True)
        found.append(
            inside.agg(
                pl.col(*MEASURE).first(),
                answer.alias("value"),
                evidence=told_by,
                n=pl.len(),
            ).with_columns(period=pl.lit(words))
        )
    joined = pl.concat(found).join(whole, on=ITEM, how="left", maintain_order="left")
    return joined.filter((pl.col("period") == "") | (pl.col("n") < pl.col("of")))


OPERATORS = {
    "value_at": value_at,
    "value_end": value_end,
    "time_end": time_end,
    "item_end": item_end,
    "item_at": item_at,
    "attribute": attribute,
    "count": count,
    "extreme": extreme,
    "exists": exists,
    "known": known,
    "status_at": status_at,
    "status_end": status_end,
}
