"""Wording: turns a chosen question into one short sentence and the shortest answer, with its tolerance.

Where a form has a `working`, what a model is taught to say (`says`) begins with the numbers on which the answer rests:
`7.2, 8.1: higher` (chain of thought, Wei et al. 2022). What stands after the colon is the answer, and it alone is scored.
"""

from __future__ import annotations

import hashlib
import re

import polars as pl

from ray_jobs.questions import draw
from ray_jobs.questions.choose import ABSENT
from ray_jobs.questions.registry import Registry
from ray_jobs.questions.template import Template

WORKED = re.compile(r"^[-\d., ]+: (?=\S)")
COLUMNS = {
    "id": pl.String,
    "hospital": pl.String,
    "patient_id": pl.String,
    "visit_id": pl.String,
    "cutoff_at": pl.Datetime("us"),
    "template_id": pl.String,
    "family": pl.String,
    "item": pl.String,
    "other": pl.String,
    "period": pl.String,
    "question": pl.String,
    "answer": pl.String,
    "says": pl.String,
    "answer_type": pl.String,
    "answer_value": pl.Float64,
    "unit": pl.String,
    "tolerance_abs": pl.Float64,
    "shortcut": pl.String,
    "shortcut_answer": pl.String,
    "evidence": pl.List(pl.String),
    "split": pl.String,
    "admitted_at": pl.Datetime("us"),
    "n_visible": pl.Int64,
}


def rows(template: Template, chosen: pl.DataFrame, records: pl.DataFrame, registry: Registry) -> pl.DataFrame:
    """Questions as published: the columns of COLUMNS, in the order of `chosen`."""
    full = chosen.drop("key").join(records, on="rec", maintain_order="left")
    forms = draw.mix(full["key"], f"{template.id} wording") % len(template.wording)
    made = [
        _row(template, row, int(form), registry)
        for row, form in zip(full.iter_rows(named=True), forms, strict=True)
    ]
    return pl.DataFrame(made, schema=COLUMNS)


def _row(template: Template, row: dict, form: int, registry: Registry) -> dict:
    unit = (
        registry.units.get(row["unit"] or "", row["unit"] or "") if template.unit is None else template.unit
    )
    digits = (
        template.digits if template.digits is not None else int(2 if row["digits"] is None else row["digits"])
    )
    digits = 1 if template.answer == "time" else digits
    unit = "h" if template.answer == "time" else unit.lower()
    slots = {
        "item": row["item"],
        "other": row["other"],
        "at": None if row["at"] is None else f"{row['at']:.1f}",
        "period": row["period"] or "",
        "direction": row["direction"],
        "threshold": None if row["threshold"] is None else with_unit(f"{row['threshold']:g}", unit),
    }
    question = template.wording[form].format(**slots)
    numeric = template.answer in ("number", "time")
    value = round(row["value"], digits) + 0.0 if numeric and not row["absent"] else None
    if row["absent"]:
        answer, kind = ABSENT, "not_in_record"
    else:
        answer, kind = printed(value, digits, unit) if numeric else row["word"], template.answer
    if numeric and row["shortcut_value"] is not None:
        shortcut = printed(round(row["shortcut_value"], digits) + 0.0, digits, unit)
    else:
        shortcut = row["shortcut_word"]
    working = None if row["absent"] else worked(template, row, digits)
    names = (row["hospital"], row["patient_id"], row["visit_id"], row["cutoff_at"], template.id, question)
    return {
        **{
            c: row[c]
            for c in ("hospital", "patient_id", "visit_id", "cutoff_at", "split", "admitted_at", "n_visible")
        },
        "id": question_id(*names),
        "template_id": template.id,
        "family": template.family,
        "item": row["item"] or "",
        "other": row["other"] or "",
        "period": (row["period"] or "").strip(),
        "question": question,
        "answer": answer,
        "says": f"{working}: {answer}" if working else answer,
        "answer_type": kind,
        "answer_value": value,
        "unit": unit if value is not None else None,
        "tolerance_abs": None if value is None else tolerance(template, value, digits),
        "shortcut": template.shortcut,
        "shortcut_answer": shortcut if template.shortcut else None,
        "evidence": sorted(set(row["evidence"])),
    }


def worked(template: Template, row: dict, digits: int) -> str | None:
    """The numbers on which the answer rests, `7.2, 8.1`: values with their digits, or hours with one decimal."""
    if template.working is None:
        return None
    places = 1 if template.working == "hours" else digits
    return ", ".join(f"{round(number, places) + 0.0:.{places}f}" for number in row[template.working])


def final(said: str) -> str:
    """The answer in what a model says: what stands after the working."""
    return WORKED.sub("", said)


def question_id(*names: object) -> str:
    """20 hex digits of whom, when and what: the same question has the same id every night."""
    return hashlib.sha256(chr(31).join(map(str, names)).encode()).hexdigest()[:20]


def printed(value: float, digits: int, unit: str) -> str:
    return with_unit(f"{value:.{digits}f}", unit)


def with_unit(number: str, unit: str) -> str:
    return f"{number} {unit}".strip()


def tolerance(template: Template, value: float, digits: int) -> float:
    """Half a last printed digit, a share of the value or hours, whichever is widest."""
    allowed = template.tolerance
    return max(allowed.digits * 10.0**-digits, allowed.relative * abs(value), allowed.hours)
