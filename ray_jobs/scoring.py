"""Is an answer right? Exact match within the question's tolerance, strict match of the text, and token F1."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl

from ray_jobs.questions.wording import final

NUMBER = re.compile(r"^([+-]?\d+(?:\.\d+)?)\s*(.*)$")
MEASURED = ("number", "time")
SLACK = 1e-9  # a tolerance is inclusive in spite of binary fractions


def normal(text: str) -> str:
    """Lower case, single spaces, no full stop at the end."""
    return " ".join(text.lower().split()).removesuffix(".")


def strict(answer: str, predicted: str) -> bool:
    """The same text, but for case, spaces and a full stop."""
    return normal(answer) == normal(predicted)


def exact(
    answer: str, predicted: str, answer_type: str, value: float | None, tolerance: float | None
) -> bool:
    """Right within the tolerance: a number or time in the unit of the answer and at most `tolerance` from `value`; any
    other answer, and one without value or tolerance, as strict. A set (`a, b`) is right in any order."""
    if answer_type == "set":
        return _members(answer) == _members(predicted)
    said, meant = NUMBER.match(normal(predicted)), NUMBER.match(normal(answer))
    if answer_type not in MEASURED or value is None or tolerance is None or not said or not meant:
        return strict(answer, predicted)
    return said[2] == meant[2] and abs(float(said[1]) - value) <= tolerance + SLACK


def _members(text: str) -> set[str]:
    return {member.strip() for member in normal(text).split(", ")}


def token_f1(answer: str, predicted: str) -> float:
    """Harmonic mean of precision and recall over words, counted with repetition (SQuAD, Rajpurkar et al. 2016)."""
    meant, said = Counter(normal(answer).split()), Counter(normal(predicted).split())
    shared = sum((meant & said).values())
    if not shared:
        return float(meant == said)
    precision, recall = shared / sum(said.values()), shared / sum(meant.values())
    return 2 * precision * recall / (precision + recall)


def score(questions: pl.DataFrame, predicted: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores of one answer a question: `exact`, `strict` (0 or 1) and `f1` (0 to 1), float64 [n] each.

    questions: columns answer, answer_type, answer_value, tolerance_abs, of the same length as `predicted`, of which a working
    before the answer is passed over.
    """
    columns = questions.select("answer", "answer_type", "answer_value", "tolerance_abs")
    rows = list(zip(columns.iter_rows(), map(final, predicted), strict=True))
    return {
        "exact": np.array([exact(a, p, kind, v, t) for (a, kind, v, t), p in rows], np.float64),
        "strict": np.array([strict(a, p) for (a, *_), p in rows], np.float64),
        "f1": np.array([token_f1(a, p) for (a, *_), p in rows], np.float64),
    }
