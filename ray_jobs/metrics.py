"""The figures of an evaluation: every row (a model or a control) by family and answer type, with intervals, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from ray_jobs.statistics import Interval, PatientBootstrap

STAGE1, STAGE2, CHAMPION = "stage 1", "stage 2", "standing champion"
FREQUENT, TRAINED_BLIND, BLIND = "most frequent answer", "trained without events", "blind"
ALIGNED, SHORTCUT = "alignment only", "shortcut rule"


def withheld(model: str) -> str:
    return f"{model}, events withheld"


def swapped(model: str) -> str:
    return f"{model}, events swapped"


ORDER = [
    *(FREQUENT, SHORTCUT, TRAINED_BLIND, BLIND, ALIGNED),
    *(name for model in (STAGE1, STAGE2) for name in (model, withheld(model), swapped(model))),
    CHAMPION,
]


@dataclass(frozen=True)
class Row:
    """Scores of one model or control: `exact`, `strict` and `f1`, float64 [n]; `asked` bool [n] says which it answered."""

    scores: Mapping[str, np.ndarray]
    asked: np.ndarray

    @property
    def exact(self) -> np.ndarray:
        return self.scores["exact"]


def patients_of(questions: pl.DataFrame) -> np.ndarray:
    """One label a question, [n]; a patient id is one patient only within a hospital."""
    return (questions["hospital"] + chr(31) + questions["patient_id"]).to_numpy()


def with_blind(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Add the blind control: the better of the answers that saw no record."""
    candidates = [rows[name] for name in (FREQUENT, TRAINED_BLIND) if name in rows]
    return {**rows, BLIND: max(candidates, key=lambda row: row.exact.mean())}


def split_metrics(questions: pl.DataFrame, rows: Mapping[str, Row]) -> dict[str, object]:
    """Figures of one split, as JSON: `rows` by name, and paired differences `minus`, overall and by family.

    Raises KeyError if `rows` has no blind control (see `with_blind`).
    """
    bootstrap = PatientBootstrap(patients_of(questions))
    groups = {c: _groups(questions[c]) for c in ("family", "answer_type")}
    minus = {
        f"{name} minus {BLIND}": _difference(bootstrap, groups["family"], row, rows[BLIND])
        for name, row in _compared(rows)
    }
    if CHAMPION in rows:
        name = f"{STAGE2} minus {CHAMPION}"
        minus[name] = _difference(bootstrap, groups["family"], rows[STAGE2], rows[CHAMPION])
    return {
        "questions": questions.height,
        "patients": bootstrap.n_patients,
        "rows": {name: _figures(bootstrap, groups, rows[name]) for name in ORDER if name in rows},
        "differences": minus,
    }


def _compared(rows: Mapping[str, Row]) -> list[tuple[str, Row]]:
    shown = [STAGE1, swapped(STAGE1), STAGE2, swapped(STAGE2), CHAMPION]
    return [(name, rows[name]) for name in shown if name in rows]


def _groups(column: pl.Series) -> dict[str, np.ndarray]:
    return {name: (column == name).to_numpy() for name in sorted(column.unique())}


def _figures(
    bootstrap: PatientBootstrap, groups: Mapping[str, Mapping[str, np.ndarray]], row: Row
) -> dict[str, object]:
    overall = {name: bootstrap.interval(values, row.asked).as_dict() for name, values in row.scores.items()}
    parts = {
        f"by_{column}": {
            name: bootstrap.interval(row.exact, row.asked & mask).as_dict() for name, mask in masks.items()
        }
        for column, masks in groups.items()
    }
    return {**overall, **parts}


def _difference(
    bootstrap: PatientBootstrap, families: Mapping[str, np.ndarray], ours: Row, theirs: Row
) -> dict[str, object]:
    both = ours.asked & theirs.asked
    by_family = {
        name: bootstrap.difference(ours.exact, theirs.exact, both & mask).as_dict()
        for name, mask in families.items()
    }
    return {**bootstrap.difference(ours.exact, theirs.exact, both).as_dict(), "by_family": by_family}


def table(figures: Mapping[str, object], title: str) -> str:
    """Markdown: one line a row; exact match with its interval, strict match and F1, then exact match by family, in %."""
    rows: Mapping[str, Mapping] = figures["rows"]
    families = sorted({f for row in rows.values() for f in row["by_family"]})
    lines = [
        f"**{title}**: {figures['questions']} questions of {figures['patients']} patients; exact match within tolerance, %",
        "",
        f"| | n | exact (95 %) | strict | F1 | {' | '.join(families)} |",
        "|---|" + "---|" * (4 + len(families)),
    ]
    for name, row in rows.items():
        by_family = " | ".join(percent(row["by_family"][f]["value"]) for f in families)
        cells = [
            str(row["exact"]["questions"]),
            bounded(row["exact"]),
            percent(row["strict"]["value"]),
            percent(row["f1"]["value"]),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {by_family} |")
    lines += [
        "",
        f"| difference, points | exact (95 %) | {' | '.join(families)} |",
        "|---|---|" + "---|" * len(families),
    ]
    for name, row in figures["differences"].items():
        by_family = " | ".join(percent(row["by_family"][f]["value"]) for f in families)
        lines.append(f"| {name} | {bounded(row)} | {by_family} |")
    return "\n".join(lines)


def sentence(difference: Interval) -> str:
    return (
        f"{100 * difference.value:+.1f} points ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    )


def bounded(figure: Mapping[str, float | None]) -> str:
    if figure["value"] is None:
        return ""
    return f"{percent(figure['value'])} ({percent(figure['low'])} to {percent(figure['high'])})"


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
