"""Serialiser `list`: one line a code, the most recent first, with its last value; no dates, no ranges, no headings.

The shape is that of the strongest published one (Hegselmann et al., arXiv 2502.17403v5); the wording is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ray_jobs.records.walk import MEASURED, Costs, Event, number


@dataclass(frozen=True)
class List:
    """digits: printed decimals by concept; budget: tokens."""

    costs: Costs
    digits: Mapping[str, int]
    budget: int
    name = "list"

    def record(self) -> ListRecord:
        return ListRecord(self)


class ListRecord:
    def __init__(self, settings: List):
        self.settings = settings
        self.lines: dict[tuple, tuple[datetime, str, int]] = {}  # the newest is the last

    def add(self, event: Event) -> None:
        _, at, _, kind, code, concept, value, unit, text, _ = event
        key = (kind, code or concept or text)
        before = self.lines.get(key)
        if before is not None:
            if before[0] > at:  # an older one that arrived late
                return
            del self.lines[key]
        line, cost = text, self.settings.costs(text)
        if value is not None:
            shown = number(value, self.settings.digits.get(concept, 2))
            said = (
                "years" if kind == "admission" else None if kind in MEASURED else unit
            )  # texts name their unit
            line, cost = f"{text}: {shown}", cost + len(shown) + 1
            if said:
                line, cost = f"{line} {said}", cost + self.settings.costs(said)
        self.lines[key] = (at, line, cost + 1)

    def text(self, now: datetime) -> str:
        left, said = self.settings.budget, []
        for _, line, cost in reversed(self.lines.values()):
            left -= cost
            if left < 0:
                break
            said.append(line)
        return "\n".join(said)
