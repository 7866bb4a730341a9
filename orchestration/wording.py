"""How mistakes in YAML and CSV are worded: the file as its owner knows it, the key, and the nearest right word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

REPOSITORY = Path(__file__).resolve().parent.parent


class LayoutError(ValueError):
    """A mapping is wrong; the message is one line naming file, key and mend."""


def near(word: str, known: Iterable[str]) -> str:
    """A hint: the nearest known word, or the list of them."""
    known = sorted(map(str, known))
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if nearest:
        return f"did you mean {nearest[0]}?"
    return f"known: {', '.join(known[:30])}" + (" ..." if len(known) > 30 else "")


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)


def mistake(path: Path, error: ValidationError, known: Iterable[str]) -> str:
    """The first mistake that pydantic found in a YAML file, as one line; `known` are the file's keys."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a typo is also a missing key
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        says = f"there is no such key; {near(key, known)}"
    else:
        says = "is missing; add it" if first["type"] == "missing" else f"{first['msg'].lower()}; mend it"
    return f"{relative(path)}: {key}: {says}"
