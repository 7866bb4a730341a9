"""Choice: which of all possible questions is asked of a record, drawn by hash and balanced without counting others.

A template asks at most one question of a record, and of a visit at one of its cut-offs: it starts at a drawn cut-off and
goes on to later ones until one has an answer of the kind it drew. So what is asked never depends on what comes later.

What a template may say of the balance (all are keys of its YAML entry):
- `classes: {yes: 1, no: 1}` draws the answer of a visit first, a word or a number, or whether the shortcut rule is `right`
  or `wrong`, then a question that fits.
- `contrast: [item]` keeps only items for which the record holds more than one answer: the item alone tells nothing.
  `contrast: [item, period]` keeps two items and two periods crosswise, one item answered yes in the first period and no in
  the second, the other the other way round: neither item nor period alone tells anything.
- `counter: 0.5` keeps only records on which the shortcut rule is right about one question and wrong about another, and
  draws a right one with these odds: the rule then scores chance, whatever the hospital.
- `thin: {emergency: 0.3}` asks only a share of the questions with a common answer.
- `absent: 0.1` exchanges the item of a share of the questions for one that is not in the record.
"""

from __future__ import annotations

import polars as pl

from ray_jobs.questions import draw
from ray_jobs.questions.facts import Facts
from ray_jobs.questions.registry import OPERATORS
from ray_jobs.questions.template import Template

ABSENT = "not in the record"
TEXTS = ["item", "other", "period", "direction", "word", "shortcut_word", "concept", "unit"]
NUMBERS = ["at", "threshold", "value", "shortcut_value", "digits"]
WORKINGS = ["values", "hours"]
COLUMNS = ["rec", "key", *TEXTS, *NUMBERS, *WORKINGS, "evidence", "absent"]


def candidates(template: Template, facts: Facts) -> pl.DataFrame:
    """All questions that a template could ask, one row each, with every column of COLUMNS."""
    rows = OPERATORS[template.operator](template, facts)
    if template.pool:
        rows = rows.filter(pl.col("item").is_in(template.pool))
    missing = [pl.lit(None, pl.String).alias(c) for c in TEXTS if c not in rows.columns]
    missing += [pl.lit(None, pl.Float64).alias(c) for c in NUMBERS if c not in rows.columns]
    missing += [pl.lit(None, pl.List(pl.Float64)).alias(c) for c in WORKINGS if c not in rows.columns]
    rows = rows.with_columns(*missing, absent=pl.lit(False)).with_columns(pl.col(NUMBERS).cast(pl.Float64))
    return rows.drop_nulls(_told(template)).select(COLUMNS)


def ask(template: Template, facts: Facts, records: pl.DataFrame, rate: float) -> pl.DataFrame:
    """The questions of one template, tried `rate` times a visit. Columns of COLUMNS, one row a question."""
    possible = candidates(template, facts)
    keyed = possible.join(records.select("rec", "visit_key"), on="rec", maintain_order="left")
    asked = [possible.clear()]
    for turn in range(int(-(-rate // 1))):
        purpose = f"{template.id} {turn}"
        chosen = _one_a_record(template, keyed, purpose)
        chosen = _one_a_visit(template, chosen, records, purpose, min(1.0, rate - turn))
        for answer, share in template.thin.items():
            kept = pl.Series(draw.share(chosen["key"], f"{purpose} thin {answer}") < share)
            chosen = chosen.filter(kept | ~_says(template, answer))
        asked.append(_some_absent(template, facts, chosen, f"{purpose} absent"))
    return pl.concat(asked)


def _says(template: Template, answer: str) -> pl.Expr:
    """Whether a question has this answer, a word or a number as it is written in `thin`."""
    told = pl.col(_told(template))
    return (told == (float(answer) if _told(template) == "value" else answer)).fill_null(False)


def _told(template: Template) -> str:
    return "value" if template.answer in ("number", "time") else "word"


def _one_a_record(template: Template, rows: pl.DataFrame, purpose: str) -> pl.DataFrame:
    told = pl.col(_told(template))
    right = pl.col(f"shortcut_{_told(template)}") == told
    rule = pl.when(right).then(pl.lit("right")).otherwise(pl.lit("wrong"))
    rows = rows.with_columns(told=told.cast(pl.String).str.strip_suffix(".0"), rule=rule)
    if template.contrast:
        rows = _contrasted(rows, template.contrast, f"{purpose} contrast")
    if template.counter:
        both = rows.filter(pl.col("rule").n_unique().over("rec") == 2)
        odds = {"right": template.counter, "wrong": 1 - template.counter}
        rows = both.filter(pl.col("rule") == draw.weighted(both["key"], f"{purpose} rule", odds))
    if template.classes:
        cell = "rule" if "right" in template.classes else "told"
        drawn = draw.weighted(rows["visit_key"], f"{purpose} class", template.classes)
        rows = rows.filter(pl.col(cell) == drawn)
    elif template.contrast or template.counter:
        rows = draw.pick(rows, ["told"], f"{purpose} answer")
    for level in (
        *([name] for name in template.contrast[1:]),
        ["item"],
        ["other"],
        ["period", "direction", "threshold", "at", "evidence"],
    ):
        rows = draw.pick(rows, level, f"{purpose} {level[0]}")
    return rows.select(COLUMNS)


def _contrasted(rows: pl.DataFrame, names: list[str], purpose: str) -> pl.DataFrame:
    """The rows of one drawn value of a column that is answered in more than one way, or of two columns crosswise."""
    if len(names) == 1:
        return draw.pick(rows.filter(pl.col("told").n_unique().over("rec", *names) > 1), names, purpose)
    one, other = names
    cells = rows.select("rec", "key", one, other, "told")
    pairs = cells.join(cells.drop("key"), on=["rec", one], suffix="_too", maintain_order="left_right")
    pairs = pairs.filter((pl.col(other) < pl.col(f"{other}_too")) & (pl.col("told") != pl.col("told_too")))
    columns = [other, f"{other}_too"]
    crossed = pairs.filter(pl.col("told").n_unique().over("rec", *columns) > 1)
    drawn = draw.pick(crossed, columns, purpose)
    kept = pl.concat(drawn.select("rec", one, pl.col(column).alias(other)) for column in columns)
    return rows.join(kept, on=["rec", one, other], how="semi", maintain_order="left")


def _one_a_visit(
    template: Template, chosen: pl.DataFrame, records: pl.DataFrame, purpose: str, rate: float
) -> pl.DataFrame:
    slots = records.select("rec", "visit_key", "slot")
    odds = {str(slot): weight for slot, weight in enumerate(template.starts)}
    start = draw.weighted(slots["visit_key"], f"{purpose} start", odds).cast(pl.Int32)
    wanted = pl.Series(draw.share(slots["visit_key"], f"{purpose} rate")) < rate
    open_slots = slots.with_columns(start=start).filter(wanted).filter(pl.col("slot") >= pl.col("start"))
    rows = chosen.join(open_slots, on="rec").sort("visit_key", "slot", "rec")
    return rows.unique("visit_key", keep="first", maintain_order=True).select(COLUMNS)


def _some_absent(template: Template, facts: Facts, chosen: pl.DataFrame, purpose: str) -> pl.DataFrame:
    """Exchange the item (or the drug) of a share of the questions for one of the pool that the record does not hold."""
    if not template.absent:
        return chosen
    slot = template.absent_slot
    subject = template.drug or template.subject if slot == "other" else template.subject
    drawn = chosen.filter(pl.Series(draw.share(chosen["key"], purpose)) < template.absent)
    present = facts.of(subject).select("rec", pl.col("item").alias(slot)).unique()
    pool = pl.DataFrame({slot: template.absent_pool}, schema={slot: pl.String})
    free = drawn.drop(slot).join(pool, how="cross").join(present, on=["rec", slot], how="anti")
    exchanged = draw.pick(free, [slot], f"{purpose} {slot}").with_columns(
        pl.lit(None, pl.String).alias("word"),
        pl.lit(None, pl.String).alias("shortcut_word"),
        pl.lit(None, pl.Float64).alias("value"),
        pl.lit(None, pl.Float64).alias("shortcut_value"),
        evidence=pl.lit([], pl.List(pl.String)),
        absent=pl.lit(True),
    )
    real = chosen.join(exchanged, on="rec", how="anti", maintain_order="left")
    return pl.concat([real, exchanged.select(COLUMNS)])
