"""Serialiser `markdown`: person, last measurements, list of visits, what lies outside visits, visits in detail.

The order of the parts, the last three values and the deduplication within a visit are those of the published document
(Hegselmann et al., arXiv 2502.17403v2); the wording is ours. There, the heading of a running visit told how long it would
last. Here a visit has a length only once its discharge is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ray_jobs.records.walk import MEASURED, Costs, Event, admitted, is_normal, number, span

SHOWN = {
    "Body": ("weight", "height", "bmi"),
    "Vital signs": ("heart_rate", "respiratory_rate", "sbp", "dbp", "temperature", "spo2"),
    "Laboratory": (
        "hemoglobin", "hematocrit", "rbc", "wbc", "platelets", "sodium", "potassium", "chloride", "bicarbonate",
        "calcium", "glucose", "urea_nitrogen", "creatinine", "anion_gap",
    ),
}  # fmt: skip
MEASUREMENTS = frozenset(concept for concepts in SHOWN.values() for concept in concepts)
LAST = 3  # values of one thing
PARTS = {"prescription": "Medications", "infusion": "Medications", "procedure": "Procedures"}


@dataclass(frozen=True)
class Markdown:
    """concepts: printed decimals and reference range by concept; budget: tokens, cut at a line's end."""

    costs: Costs
    concepts: Mapping[str, tuple[int, float | None, float | None]]
    budget: int
    name = "markdown"

    def record(self) -> MarkdownRecord:
        return MarkdownRecord(self)


@dataclass
class Visit:
    since: datetime
    kind: str = "visit"
    left: str | None = None  # known only once it happened
    until: datetime | None = None
    parts: dict[str, dict[str, list[str]]] = field(
        default_factory=lambda: {part: {} for part in ("Conditions", "Medications", "Procedures")}
    )


class MarkdownRecord:
    def __init__(self, settings: Markdown):
        self.settings = settings
        self.person = ""
        self.measured: dict[str, tuple[str, list[tuple[datetime, float]]]] = {}
        self.visits: dict[str, Visit] = {}
        self.outside: dict[str, list[str]] = {}

    def add(self, event: Event) -> None:
        visit_id, at, _, kind, _, concept, value, unit, text, _ = event
        if kind in MEASURED:
            if concept in MEASUREMENTS and value is not None:
                values = self.measured.setdefault(concept, (text, []))[1]
                values.append((at, value))
                values.sort(key=lambda reading: reading[0])
                del values[:-LAST]
            return
        visit = self._visit(visit_id, at)
        if kind == "admission" and visit:
            visit.since, (visit.kind, sex) = at, admitted(text)
            age = None if value is None else f"{number(value, 0)} years"
            self.person = ", ".join(said for said in (sex, age) if said) or self.person
        elif kind == "discharge" and visit:
            visit.until, visit.left = at, text.removeprefix("discharge: ")
        else:
            things = visit.parts[PARTS.get(kind, "Conditions")] if visit else self.outside
            values = things.setdefault(text, [])
            if value is not None:
                values.append(f"{number(value)} {unit}" if unit else number(value))
                del values[:-LAST]

    def text(self, now: datetime) -> str:
        left, said = self.settings.budget, []
        for line, cost in self._lines(now):
            left -= cost + 1
            if left < 0:
                break
            said.append(line)
        while said and said[-1].startswith("#"):  # a heading with nothing below it
            said.pop()
        return "\n".join(said)

    def _visit(self, visit_id: str | None, at: datetime) -> Visit | None:
        return None if visit_id is None else self.visits.setdefault(visit_id, Visit(at))

    def _lines(self, now: datetime) -> Iterator[tuple[str, int]]:
        costs = self.settings.costs
        yield from ((line, costs(line)) for line in ("# Health record", "Times count back from now."))
        if self.person:
            yield f"- {self.person}", 1 + costs(self.person)
        for heading, concepts in SHOWN.items():
            known = [c for c in concepts if c in self.measured]
            yield f"## {heading}", costs(f"## {heading}")
            yield from map(self._values, known)
            if not known:
                yield "- nothing measured", costs("- nothing measured")
        visits = sorted(self.visits.items(), key=lambda v: (v[1].since, v[0]), reverse=True)
        headings = [self._heading(visit, now) for _, visit in visits]
        yield "## Visits", costs("## Visits")
        yield from ((f"- {heading}", 1 + costs(heading)) for heading in headings)
        if self.outside:
            yield "## Outside visits", costs("## Outside visits")
            yield from self._things(self.outside)
        for heading, (_, visit) in zip(headings, visits, strict=True):
            yield f"## Visit {heading}", costs("## Visit") + costs(heading)
            for part, things in visit.parts.items():
                if things:
                    yield f"### {part}", costs(f"### {part}")
                    yield from self._things(things)

    def _heading(self, visit: Visit, now: datetime) -> str:
        began = f"{span(now - visit.since)} ago"
        if visit.until is None:
            return f"{began}, {visit.kind}, still in hospital"
        return f"{began}, {visit.kind}, for {span(visit.until - visit.since)}, then {visit.left}"

    def _values(self, concept: str) -> tuple[str, int]:
        text, values = self.measured[concept]
        digits, low, high = self.settings.concepts.get(concept, (2, None, None))
        cost, shown = 2 + self.settings.costs(text), []
        for _, value in reversed(values):
            value_shown, state = number(value, digits), is_normal(value, low, high)
            shown.append(f"{value_shown} {state}" if state else value_shown)
            cost += len(value_shown) + 1 + (self.settings.costs(state) if state else 0)
        return f"- {text}: {', '.join(shown)}", cost

    def _things(self, things: Mapping[str, list[str]]) -> Iterator[tuple[str, int]]:
        for text, values in things.items():
            cost = 1 + self.settings.costs(text)
            if not values:
                yield f"- {text}", cost
                continue
            shown = ", ".join(reversed(values))
            yield f"- {text}: {shown}", cost + 1 + len(shown)
