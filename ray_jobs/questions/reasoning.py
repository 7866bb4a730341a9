"""Operators of clinical reasoning: questions whose answer needs several events, computed, never guessed.

Candidates have the columns that lookups.py describes; `other` is the second thing asked about (the drug). Each operator
also says what a named shortcut rule would answer, so that candidates can be drawn on which the rule fails.
"""

from __future__ import annotations

import polars as pl

from ray_jobs.questions.facts import Facts
from ray_jobs.questions.lookups import ITEM, MEASURE, with_status
from ray_jobs.questions.template import Template

PAIR = ["rec", "key", "item", "other"]


def trend(template: Template, facts: Facts) -> pl.DataFrame:
    """Last value against the previous or the first one, higher or lower, of at least three values.

    Shortcut last_against_mean: the last value against the mean of all; last_step: against the previous one.
    """
    series = series_of(template, facts)
    base, position = ("previous", -2) if template.compare == "previous" else ("first", 0)
    rule = "mean" if template.shortcut == "last_against_mean" else "previous"
    return differs(series, "last", base).with_columns(
        word=higher("last", base),
        shortcut_word=higher("last", rule),
        values=pl.concat_list(base, "last"),
        evidence=pl.concat_list(pl.col("ids").list.get(position), pl.col("ids").list.last()),
    )


def threshold_after(template: Template, facts: Facts) -> pl.DataFrame:
    """Whether a measurement was beyond a normal limit after a drug's start, yes or no; asked where it ever was.

    Shortcut any_value: whether it ever was, before or after, so always yes.
    """
    pairs = around(template, facts).drop_nulls(["normal_low", "normal_high"])
    after = pl.col("hour") > pl.col("start")
    value = pl.col("value")
    found = []
    for words, limit in (("below", "normal_low"), ("above", "normal_high")):
        beyond = value < pl.col(limit) if words == "below" else value > pl.col(limit)
        found.append(
            pairs.group_by(PAIR, maintain_order=True)
            .agg(
                pl.col(*MEASURE).first(),
                n=after.sum(),
                crossed=(beyond & after).any(),
                ever=beyond.any(),
                furthest=getattr(value.filter(after), "min" if words == "below" else "max")(),
                start_id=pl.col("start_id").first(),
                evidence=pl.col("row_id").filter(after),
                hits=pl.col("row_id").filter(beyond & after),
            )
            .with_columns(direction=pl.lit(words), threshold=pl.col(limit))
        )
    rows = pl.concat(found).filter((pl.col("n") >= 1) & pl.col("ever"))
    told = pl.when("crossed").then("hits").otherwise("evidence")
    return rows.with_columns(
        word=yes("crossed"),
        shortcut_word=yes("ever"),
        values=pl.concat_list("furthest"),
        evidence=pl.concat_list("start_id", told),
    )


def change_after(template: Template, facts: Facts) -> pl.DataFrame:
    """The first value after a drug's start against the last one before it. Shortcut last_against_first: the whole series."""
    rows = _sides(around(template, facts)).filter(pl.col("n") >= 3)
    return differs(rows, "next", "last_before").with_columns(
        word=higher("next", "last_before"),
        shortcut_word=higher("last", "first"),
        values=pl.concat_list("last_before", "next"),
        evidence=pl.concat_list("start_id", "before_id", "next_id"),
    )


def value_before(template: Template, facts: Facts) -> pl.DataFrame:
    """The last value before a drug's start. Shortcut last_value: the last of all."""
    return _value_beside(template, facts, "last_before", "last", "before_id")


def value_after(template: Template, facts: Facts) -> pl.DataFrame:
    """The first value after a drug's start. Shortcut first_value: the first of all."""
    return _value_beside(template, facts, "next", "first", "next_id")


def status_before(template: Template, facts: Facts) -> pl.DataFrame:
    """Low, normal or high at the last value before a drug's start. Shortcut last_status: at the last value of all."""
    return _status_beside(template, facts, "last_before", "last", "before_id")


def status_after(template: Template, facts: Facts) -> pl.DataFrame:
    """Low, normal or high at the first value after a drug's start. Shortcut first_status: at the first value of all."""
    return _status_beside(template, facts, "next", "first", "next_id")


def place_at(template: Template, facts: Facts) -> pl.DataFrame:
    """The care unit (the subject) in which a patient was when a drug started. Shortcut last_place: the last care unit."""
    units = facts.of(template.subject).select("rec", unit_name="item", came="hour", unit_id="row_id")
    drugs = starts(facts.of(template.drug)).rename({"item": "other"})
    last = units.group_by("rec", maintain_order=True).agg(
        shortcut_word=pl.col("unit_name").last(), units=pl.col("unit_name").n_unique()
    )
    there = drugs.join(units, on="rec", maintain_order="left_right").filter(pl.col("came") < pl.col("start"))
    there = there.group_by("rec", "key", "other", maintain_order=True).agg(
        pl.col("start", "start_id").first(), word=pl.col("unit_name").last(), unit_id=pl.col("unit_id").last()
    )
    rows = there.join(last.filter(pl.col("units") > 1), on="rec", maintain_order="left")
    return rows.with_columns(item=pl.lit(""), evidence=pl.concat_list("start_id", "unit_id"))


def _value_beside(template: Template, facts: Facts, told: str, rule: str, row_id: str) -> pl.DataFrame:
    rows = _sides(around(template, facts))
    return rows.with_columns(
        value=pl.col(told), shortcut_value=pl.col(rule), evidence=pl.concat_list("start_id", row_id)
    )


def _status_beside(template: Template, facts: Facts, told: str, rule: str, row_id: str) -> pl.DataFrame:
    rows = _sides(around(template, facts))
    said = with_status(rows.with_columns(value=pl.col(told)))
    by_rule = with_status(rows.with_columns(value=pl.col(rule))).select(*PAIR, shortcut_word=pl.col("word"))
    joined = said.join(by_rule, on=PAIR, maintain_order="left")
    return joined.with_columns(
        evidence=pl.concat_list("start_id", row_id), values=pl.concat_list(told), value=None
    )


def extreme_side(template: Template, facts: Facts) -> pl.DataFrame:
    """Whether the highest or lowest value stands before or after a drug's start; not asked where it stands at the same printed
    hour.

    Shortcut drug_in_first_half: after, if the drug started in the first half of the record.
    """
    pairs = around(template, facts)
    best = pl.col("value").max() if template.statistic == "max" else pl.col("value").min()
    rows = (
        pairs.filter(pl.col("value") == best.over(PAIR))
        .group_by(PAIR, maintain_order=True)
        .agg(
            pl.col(*MEASURE).first(),
            after=(pl.col("hour") > pl.col("start")).all(),
            sides=(pl.col("hour") > pl.col("start")).n_unique(),
            apart=_tell_apart("hour", "start").all(),
            start=pl.col("start").first(),
            best=pl.col("hour").first(),
            evidence=pl.col("row_id"),
            start_id=pl.col("start_id").first(),
        )
    )
    both = _sides(pairs).select(PAIR)
    rows = rows.filter((pl.col("sides") == 1) & pl.col("apart")).join(
        both, on=PAIR, how="semi", maintain_order="left"
    )
    rows = rows.join(facts.end.drop("key"), on="rec", maintain_order="left")
    side = {True: pl.lit("after"), False: pl.lit("before")}
    return rows.with_columns(
        word=pl.when("after").then(side[True]).otherwise(side[False]),
        shortcut_word=pl.when(pl.col("start") * 2 < pl.col("end")).then(side[True]).otherwise(side[False]),
        hours=pl.concat_list("best", "start"),
        evidence=pl.concat_list("start_id", "evidence"),
    )


def order(template: Template, facts: Facts) -> pl.DataFrame:
    """Whether an item first happened before another of its subject, or of the one that `drug` names, yes or no; things at
    the same printed hour are not asked. Shortcut in_first_half: yes, if the one asked about happened in the first half of the record.
    """
    firsts, others = starts(facts.of(template.subject)), starts(facts.of(template.drug or template.subject))
    others = others.select("rec", other="item", other_start="start", other_id="start_id")
    pairs = firsts.join(others, on="rec", maintain_order="left_right").filter(
        (pl.col("item") != pl.col("other")) & _tell_apart("start", "other_start")
    )
    pairs = pairs.join(facts.end.drop("key"), on="rec", maintain_order="left")
    return pairs.with_columns(
        earlier=pl.col("start") < pl.col("other_start"), half=pl.col("start") * 2 < pl.col("end")
    ).with_columns(
        word=yes("earlier"),
        shortcut_word=yes("half"),
        hours=pl.concat_list("start", "other_start"),
        evidence=pl.concat_list("start_id", "other_id"),
    )


def next_drug(template: Template, facts: Facts) -> pl.DataFrame:
    """Which drug was the first to start after an item of the subject (a positive culture, another drug).

    Shortcut first_drug: the first of these drugs in the record, whenever it started.
    """
    cultures = starts(facts.of(template.subject))
    drugs = facts.of(template.drug).select("rec", drug="item", began="hour", drug_id="row_id")
    first = drugs.group_by("rec", maintain_order=True).agg(
        shortcut_word=pl.col("drug").first(), n=(pl.col("began") == pl.col("began").min()).sum()
    )
    later = cultures.join(drugs, on="rec", maintain_order="left_right").filter(
        (pl.col("began") > pl.col("start")) & (pl.col("drug") != pl.col("item"))
    )
    nearest = later.filter(pl.col("began") == pl.col("began").min().over(ITEM))
    rows = nearest.filter(pl.len().over(ITEM) == 1).with_columns(word=pl.col("drug"))
    rows = rows.join(first.filter(pl.col("n") == 1), on="rec", maintain_order="left")
    return rows.with_columns(evidence=pl.concat_list("start_id", "drug_id"))


def series_of(template: Template, facts: Facts) -> pl.DataFrame:
    """An item's values in a row: last, previous, first and mean of three or more, of which no two are of one hour; `ids`."""
    rows = facts.of(template.subject).drop_nulls("value")
    value = pl.col("value")
    series = rows.group_by(ITEM, maintain_order=True).agg(
        pl.col(*MEASURE).first(),
        n=pl.len(),
        times=pl.col("hour").n_unique(),
        last=value.last(),
        previous=value.get(-2, null_on_oob=True),
        first=value.first(),
        mean=value.mean(),
        ids=pl.col("row_id"),
    )
    return series.filter((pl.col("n") >= 3) & (pl.col("n") == pl.col("times")))


def starts(rows: pl.DataFrame) -> pl.DataFrame:
    """An item's first fact: rec, key, item, start (hour), start_id."""
    return rows.group_by(ITEM, maintain_order=True).agg(
        start=pl.col("hour").first(), start_id=pl.col("row_id").first()
    )


def around(template: Template, facts: Facts) -> pl.DataFrame:
    """Every measurement of a record beside every drug of it: item, other (the drug), hour, value, start, start_id."""
    drugs = starts(facts.of(template.drug)).select("rec", "start", "start_id", other="item")
    rows = facts.of(template.subject).drop_nulls("value")
    return rows.join(drugs, on="rec", maintain_order="left_right").drop("word", "at")


def _sides(pairs: pl.DataFrame) -> pl.DataFrame:
    """A pair's last value before the drug's start and the first one after it; both must be there."""
    before, after = pl.col("hour") < pl.col("start"), pl.col("hour") > pl.col("start")
    value, row_id = pl.col("value"), pl.col("row_id")
    return (
        pairs.group_by(PAIR, maintain_order=True)
        .agg(
            pl.col(*MEASURE, "start", "start_id").first(),
            n=pl.len(),
            first=value.first(),
            last=value.last(),
            last_before=value.filter(before).last(),
            next=value.filter(after).first(),
            before_id=row_id.filter(before).last(),
            next_id=row_id.filter(after).first(),
        )
        .drop_nulls(["last_before", "next"])
    )


def _tell_apart(one: str, other: str) -> pl.Expr:
    """Whether a reader of the printed hours sees which came first."""
    return pl.col(one).round(1) != pl.col(other).round(1)


def higher(one: str, other: str) -> pl.Expr:
    return pl.when(pl.col(one) > pl.col(other)).then(pl.lit("higher")).otherwise(pl.lit("lower"))


def yes(column: str) -> pl.Expr:
    return pl.when(column).then(pl.lit("yes")).otherwise(pl.lit("no"))


def differs(rows: pl.DataFrame, one: str, other: str) -> pl.DataFrame:
    """Leave out what a reader of the printed numbers could not tell apart: less than a last digit or 2 %."""
    step = pl.max_horizontal(
        10.0 ** -pl.col("digits").fill_null(2).cast(pl.Float64), pl.col(other).abs() * 0.02
    )
    return rows.filter((pl.col(one) - pl.col(other)).abs() >= step * 0.999)


OPERATORS = {
    "trend": trend,
    "threshold_after": threshold_after,
    "change_after": change_after,
    "value_before": value_before,
    "value_after": value_after,
    "status_before": status_before,
    "status_after": status_after,
    "place_at": place_at,
    "extreme_side": extreme_side,
    "order": order,
    "next_drug": next_drug,
}
