"""Operators about whole series: what lies beyond the limits, by how much it moved, what several values give together.

Candidates have the columns that lookups.py describes.
"""

from __future__ import annotations

import polars as pl

from ray_jobs.questions.facts import Facts, period_of
from ray_jobs.questions.lookups import ITEM, MEASURE, with_status
from ray_jobs.questions.reasoning import PAIR, around, differs, higher, series_of, yes
from ray_jobs.questions.template import Template


def items(template: Template, facts: Facts) -> pl.DataFrame:
    """The set of all items of the subject in a period, in alphabetical order; of two to five items."""
    rows = facts.of(template.subject)
    found = []
    for name in template.periods:
        condition, words = period_of(name)
        inside = rows.filter(condition).group_by("rec", "key", maintain_order=True)
        found.append(
            inside.agg(
                word=pl.col("item").unique().sort().str.join(", "),
                n=pl.col("item").n_unique(),
                evidence=pl.col("row_id"),
            ).with_columns(period=pl.lit(words))
        )
    return pl.concat(found).filter(pl.col("n").is_between(2, 5)).with_columns(item=pl.lit(""))


def different(template: Template, facts: Facts) -> pl.DataFrame:
    """How many different items of the subject a period holds. Shortcut whole_record: the record, without the period."""
    rows = facts.of(template.subject)
    whole = rows.group_by("rec").agg(shortcut_value=pl.col("item").n_unique().cast(pl.Float64))
    found = []
    for name in template.periods:
        condition, words = period_of(name)
        inside = rows.filter(condition).group_by("rec", "key", maintain_order=True)
        found.append(
            inside.agg(
                value=pl.col("item").n_unique().cast(pl.Float64), evidence=pl.col("row_id")
            ).with_columns(period=pl.lit(words))
        )
    joined = pl.concat(found).join(whole, on="rec", maintain_order="left")
    return joined.with_columns(item=pl.lit(""))


def attribute_over(template: Template, facts: Facts) -> pl.DataFrame:
    """Whether the number that an event carries (the age) is at least a threshold of `limits`, yes or no."""
    rows = facts.of(template.subject).drop_nulls("value")
    one = rows.filter(pl.len().over(ITEM) == 1)
    limits = pl.DataFrame({"threshold": template.limits}, schema={"threshold": pl.Float64})
    asked = one.join(limits, how="cross").with_columns(met=pl.col("value") >= pl.col("threshold"))
    return asked.with_columns(word=yes("met"), at=None, value=None, evidence=pl.concat_list("row_id"))


def count_beyond(template: Template, facts: Facts) -> pl.DataFrame:
    """How many values lie below or above the normal limits, at least one. Shortcut all_values: how many there are."""
    rows = _beyond(template, facts).filter(pl.col("n_beyond") >= 1)
    return rows.with_columns(
        value=pl.col("n_beyond").cast(pl.Float64),
        shortcut_value=pl.col("n").cast(pl.Float64),
        evidence=pl.col("ids"),
    )


def first_beyond(template: Template, facts: Facts) -> pl.DataFrame:
    """The hour of the first value below or above the normal limits, of several values. Shortcut first_time: of any value."""
    rows = _beyond(template, facts).filter(
        (pl.col("n_beyond") >= 1) & (pl.col("n") >= 2) & (pl.col("hour") >= 0)
    )
    return rows.with_columns(
        value=pl.col("hours").list.first(),
        shortcut_value=pl.col("hour"),
        evidence=pl.col("ids").list.slice(0, 1),
    )


def returned(template: Template, facts: Facts) -> pl.DataFrame:
    """Whether a value within the limits came after the first one outside them, yes or no; asked where the last is outside.

    Shortcut last_normal: whether the last value is within the limits, so always no.
    """
    rows = with_status(facts.of(template.subject))
    outside = pl.col("word") != "normal"
    series = rows.group_by(ITEM, maintain_order=True).agg(
        pl.col(*MEASURE).first(),
        n=pl.len(),
        came=pl.col("hour").filter(outside).min(),
        ended=pl.col("hour").filter(~outside).max(),
        last=outside.last(),
        ids=pl.col("row_id"),
        end=pl.col("hour").last(),
    )
    asked = series.filter(
        (pl.col("n") >= 3) & (pl.col("came") < pl.col("end")) & pl.col("last")
    ).with_columns(met=(pl.col("ended") > pl.col("came")).fill_null(False))
    return asked.with_columns(word=yes("met"), shortcut_word=pl.lit("no"), evidence=pl.col("ids"))


def difference(template: Template, facts: Facts) -> pl.DataFrame:
    """The last value less the first or the previous one. Shortcut last_step: less the previous; whole: less the first."""
    series = series_of(template, facts)
    base, position, rule = (
        ("previous", -2, "first") if template.compare == "previous" else ("first", 0, "previous")
    )
    return differs(series, "last", base).with_columns(
        value=pl.col("last") - pl.col(base),
        shortcut_value=pl.col("last") - pl.col(rule),
        evidence=pl.concat_list(pl.col("ids").list.get(position), pl.col("ids").list.last()),
    )


def computed(template: Template, facts: Facts) -> pl.DataFrame:
    """A number that several items measured at one hour give: the sum of `terms` (item: factor) over the item `over`.

    Asked of each hour at which every item has one value. Shortcut last_computed: of the last such hour.
    """
    named = [*template.terms, *([template.over] if template.over else [])]
    rows = (
        facts.of(template.subject)
        .drop_nulls("value")
        .filter(pl.col("item").is_in(named) & (pl.col("at") >= 0))
    )
    rows = rows.filter(pl.len().over("rec", "item", "at") == 1)
    factor = pl.col("item").replace_strict(template.terms, default=0.0, return_dtype=pl.Float64)
    below = pl.col("value").filter(pl.col("item") == template.over).first() if template.over else pl.lit(1.0)
    hours = rows.group_by("rec", "key", "at", maintain_order=True).agg(
        total=(pl.col("value") * factor).sum(), below=below, n=pl.len(), evidence=pl.col("row_id")
    )
    whole = hours.filter((pl.col("n") == len(named)) & (pl.col("below") != 0)).sort("rec", "at")
    return whole.with_columns(value=pl.col("total") / pl.col("below"), item=pl.lit("")).with_columns(
        shortcut_value=pl.col("value").last().over("rec")
    )


def both_outside(template: Template, facts: Facts) -> pl.DataFrame:
    """Whether the last value of a second item is outside its limits too, yes or no; asked where the first item's is.

    Shortcut first_outside: whether the first one's is, so always yes.
    """
    rows = with_status(facts.of(template.subject))
    last = rows.group_by(ITEM, maintain_order=True).agg(
        outside=pl.col("word").last() != "normal", row_id=pl.col("row_id").last()
    )
    others = last.select("rec", other="item", other_outside="outside", other_id="row_id")
    pairs = last.join(others, on="rec", maintain_order="left_right").filter(pl.col("item") != pl.col("other"))
    return pairs.filter("outside").with_columns(
        word=yes("other_outside"), shortcut_word=pl.lit("yes"), evidence=pl.concat_list("row_id", "other_id")
    )


def extreme_beside(template: Template, facts: Facts) -> pl.DataFrame:
    """The highest, lowest or mean value on one `side` of a drug's start, of two or more. Shortcut whole_record: of all."""
    pairs, side = around(template, facts), _side(template)
    value, row_id = pl.col("value"), pl.col("row_id")
    answer = getattr(value.filter(side), template.statistic)()
    told_by = row_id.filter(side) if template.statistic == "mean" else row_id.filter(side & (value == answer))
    rows = pairs.group_by(PAIR, maintain_order=True).agg(
        pl.col(*MEASURE, "start_id").first(),
        n=side.sum(),
        of=pl.len(),
        told=answer,
        shortcut_value=getattr(value, template.statistic)(),
        ids=told_by,
    )
    rows = rows.filter((pl.col("n") >= 2) & (pl.col("of") > pl.col("n")))
    return rows.with_columns(value=pl.col("told"), evidence=pl.concat_list("start_id", "ids"))


def count_beside(template: Template, facts: Facts) -> pl.DataFrame:
    """How many values lie on one `side` of a drug's start, at least one, with others beyond it. Shortcut whole_record."""
    side = _side(template)
    rows = (
        around(template, facts)
        .group_by(PAIR, maintain_order=True)
        .agg(
            pl.col("start_id").first(),
            value=side.sum().cast(pl.Float64),
            shortcut_value=pl.len().cast(pl.Float64),
            ids=pl.col("row_id").filter(side),
        )
    )
    rows = rows.filter((pl.col("value") >= 1) & (pl.col("value") < pl.col("shortcut_value")))
    return rows.with_columns(evidence=pl.concat_list("start_id", "ids"))


def mean_shift(template: Template, facts: Facts) -> pl.DataFrame:
    """Whether the mean after a drug's start is higher or lower than before, two values a side or more.

    Shortcut last_against_first: the last value of all against the first.
    """
    before, after = pl.col("hour") < pl.col("start"), pl.col("hour") > pl.col("start")
    value = pl.col("value")
    rows = (
        around(template, facts)
        .group_by(PAIR, maintain_order=True)
        .agg(
            pl.col(*MEASURE, "start_id").first(),
            first=value.first(),
            last=value.last(),
            mean_before=value.filter(before).mean(),
            mean_after=value.filter(after).mean(),
            n=pl.min_horizontal(before.sum(), after.sum()),
            ids=pl.col("row_id"),
        )
    )
    rows = differs(rows.filter(pl.col("n") >= 2), "mean_after", "mean_before")
    return rows.with_columns(
        word=higher("mean_after", "mean_before"),
        shortcut_word=higher("last", "first"),
        evidence=pl.concat_list("start_id", "ids"),
    )


def _side(template: Template) -> pl.Expr:
    hour, start = pl.col("hour"), pl.col("start")
    return hour < start if template.side == "before" else hour > start


def _beyond(template: Template, facts: Facts) -> pl.DataFrame:
    """An item's values below and above the limits, one row a direction: n, n_beyond, hours, ids, hour of its first value."""
    rows = facts.of(template.subject).drop_nulls(["value", "normal_low", "normal_high"])
    found = []
    for words, limit in (("below", "normal_low"), ("above", "normal_high")):
        value, edge = pl.col("value"), pl.col(limit)
        beyond = value < edge if words == "below" else value > edge
        found.append(
            rows.group_by(ITEM, maintain_order=True)
            .agg(
                pl.col(*MEASURE, "hour").first(),
                n=pl.len(),
                n_beyond=beyond.sum(),
                hours=pl.col("at").filter(beyond),
                ids=pl.col("row_id").filter(beyond),
            )
            .with_columns(direction=pl.lit(words), threshold=pl.col(limit))
        )
    return pl.concat(found)


OPERATORS = {
    "items": items,
    "different": different,
    "attribute_over": attribute_over,
    "count_beyond": count_beyond,
    "first_beyond": first_beyond,
    "returned": returned,
    "difference": difference,
    "computed": computed,
    "both_outside": both_outside,
    "extreme_beside": extreme_beside,
    "count_beside": count_beside,
    "mean_shift": mean_shift,
}
