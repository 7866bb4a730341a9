"""Short notes in plain words, written from the truth: an admission note and a discharge summary."""

from __future__ import annotations

import numpy as np
import polars as pl

from orchestration.synthetic.clock import HOUR
from orchestration.synthetic.cohort import Cohort
from orchestration.synthetic.diseases import DISEASES

ENDINGS = [
    "The patient recovered well and left in good condition.",
    "The course was slow but the patient improved.",
]


def notes(
    rng: np.random.Generator,
    cohort: Cohort,
    drugs: pl.DataFrame,
    cultures: pl.DataFrame,
    procedures: pl.DataFrame,
) -> pl.DataFrame:
    """(admission, at, stored, kind, text): the admission note is known hours after arrival, the summary at discharge."""
    listed = {
        "drugs": _joined(drugs, "drug"),
        "organisms": _joined(cultures.drop_nulls("organism"), "organism"),
        "procedures": _joined(procedures, "name"),
    }
    age = cohort.age()
    admission_text, summary = [], []
    for i in range(cohort.size):
        reason = DISEASES[cohort.principal[i]].name
        others = [DISEASES[d].name for d in np.flatnonzero(cohort.has[i]) if d != cohort.principal[i]]
        known = [d.name for d in map(DISEASES.__getitem__, np.flatnonzero(cohort.chronic[cohort.person[i]]))]
        sex = "woman" if cohort.female[cohort.person[i]] else "man"
        history = f"History of {', '.join(known)}." if known else "No relevant history."
        admission_text.append(
            f"{age[i]} year old {sex} admitted to {cohort.ward[i]} with {reason}. {history}"
        )
        summary.append(_summary(i, cohort, reason, others, listed))
    first = cohort.admit + rng.integers(60, 5 * HOUR, cohort.size)
    index = np.arange(cohort.size)
    return pl.concat([
        pl.DataFrame({"admission": index, "at": first, "stored": first + 30, "kind": "admission note", "text": admission_text}),
        pl.DataFrame({"admission": index, "at": cohort.discharge, "stored": cohort.discharge, "kind": "discharge summary", "text": summary}),
    ]).sort("admission", "at")  # fmt: skip


def _joined(rows: pl.DataFrame, column: str) -> dict[int, str]:
    grouped = rows.group_by("admission", maintain_order=True).agg(pl.col(column).unique(maintain_order=True))
    return {a: ", ".join(names) for a, names in grouped.iter_rows()}


def _summary(
    i: int, cohort: Cohort, reason: str, others: list[str], listed: dict[str, dict[int, str]]
) -> str:
    parts = [f"Brief hospital course: admitted with {reason}."]
    if cohort.in_icu[i]:
        hours = (cohort.icu_end[i] - cohort.icu_start[i]) // HOUR
        parts.append(f"Needed {cohort.icu_unit[i]} for {hours} hours.")
    if i in listed["organisms"]:
        parts.append(f"Cultures grew {listed['organisms'][i]}.")
    if i in listed["procedures"]:
        parts.append(f"Procedures: {listed['procedures'][i]}.")
    if i in listed["drugs"]:
        parts.append(f"Treated with {listed['drugs'][i]}.")
    if others:
        parts.append(f"Also present: {', '.join(others)}.")
    parts.append("The patient died." if cohort.died[i] else ENDINGS[min(int(cohort.course[i]), 1)])
    return " ".join(parts)
