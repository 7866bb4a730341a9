"""Does a text tell an answer? A check by words, numbers and polarity that errs towards no: what it lets pass trains a model.

Words must stand in one clause, and so must numbers, at the precision of the answer. A clause that denies something supports
only an answer that denies it in the same words: `no pneumonia` supports neither `pneumonia` nor `fever, no pneumonia`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

CLAUSE_END = re.compile(r"[;!?\n]|\.(?!\d)|\b(?:but|however|except|although)\b")
WORD = re.compile(r"[a-z0-9]+(?:\.[0-9]+)?")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
DENIALS = frozenset(
    [
        "no",
        "not",
        "without",
        "denies",
        "denied",
        "deny",
        "never",
        "none",
        "neither",
        "nor",
        "negative",
        "absent",
        "absence",
        "excluded",
        "unlikely",
        "ruled",
        "cannot",
        "doubtful",
        "resolved",
    ]
)
BARE = frozenset(
    ["yes", "no", "true", "false", "unknown", "none"]
)  # says nothing that a word could be found for


def tells(text: str, answer: str) -> bool:
    """Whether one clause of a free text tells the whole answer."""
    return any(_clause_tells(_words(clause), answer) for clause in CLAUSE_END.split(text.lower()))


def evidence(answer: str, events: Iterable[tuple[str, str, float | None, str | None]]) -> list[str]:
    """Row ids of the events that tell the answer, each the whole of it; empty if none does.

    events: (row_id, text, value, unit) as a record shows them.
    """
    return [
        row_id
        for row_id, text, value, unit in events
        if _clause_tells(_words(f"{text} {unit or ''}".lower()), answer, value)
    ]


def _clause_tells(clause: list[str], answer: str, value: float | None = None) -> bool:
    said = _words(answer.lower())
    if not said or set(said) <= BARE:
        return False
    denied = bool(DENIALS & set(said))
    if denied != bool(DENIALS & set(clause)):
        return False
    if denied:
        return f" {' '.join(said)} " in f" {' '.join(clause)} "
    return all(word in clause or _is(word, value) for word in said)


def _is(word: str, value: float | None) -> bool:
    """Whether `word` is the number `value`, rounded as the word is."""
    if value is None or not NUMBER.fullmatch(word):
        return False
    decimals = len(word.partition(".")[2])
    return abs(value - float(word)) <= 0.5 * 10.0**-decimals


def _words(text: str) -> list[str]:
    return WORD.findall(text)
