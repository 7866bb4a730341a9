"""Serialiser `weighed`: what is known, each thing once, those first that tell most about the task for their length.

A measurement is told with its unit, its reference range, where it lies in it, since when and how it has changed; anything
else with when it was last seen and how often. The budget goes to the things with the most worth a token: worth is fitted on
the train split (`worth.py`), and fades with age, because a month holds nearly all that matters (`HALF_LIFE`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ray_jobs.records.walk import MEASURED, Costs, Event, admitted, is_normal, number, span

HALF_LIFE = timedelta(days=30)
TREND = timedelta(days=7)  # how far back a change is told
READINGS = 12  # that are kept of one thing
AGE = 6  # tokens of ", 23 months ago" and a line end, two digits being two
LEAST = 1e-4  # bits: the worth of a thing that tells nothing or was never seen in the train split
ENOUGH = 0.1  # a change below this share of the value before is no change


@dataclass(frozen=True)
class Weighed:
    """concepts: printed decimals and reference range; worth: bits by thing, see `worth.fit`; budget: tokens."""

    costs: Costs
    concepts: Mapping[str, tuple[int, float | None, float | None]]
    budget: int
    worth: Mapping[str, float] = field(default_factory=dict)
    name = "weighed"

    def record(self) -> WeighedRecord:
        return WeighedRecord(self)


class Thing:
    """All that is known of one concept, code or text."""

    __slots__ = ("concept", "count", "last", "line", "readings", "text", "unit")

    def __init__(self, concept: str | None, text: str):
        self.concept, self.text, self.unit = concept, text, None
        self.count, self.last, self.readings = 0, datetime.min, []
        self.line: tuple[str, str, int] | None = (
            None  # before and after its age, and its tokens; made when asked for
        )

    def add(self, at: datetime, value: float | None, unit: str | None, text: str) -> None:
        self.count, self.line = self.count + 1, None
        if at >= self.last:
            self.last, self.unit, self.text = at, unit, text
        if value is not None:
            self.readings.append((at, value))
            if len(self.readings) > 1 and self.readings[-2][0] > at:
                self.readings.sort(key=lambda reading: reading[0])
            if len(self.readings) > READINGS:
                del self.readings[0]


class WeighedRecord:
    def __init__(self, settings: Weighed):
        self.settings = settings
        self.things: dict[str, Thing] = {}
        self.person: list[str] = []
        self.visits: dict[str, list] = {}  # admitted at, type of visit, left at, where to

    def add(self, event: Event) -> None:
        visit_id, at, _, kind, code, concept, value, unit, text, _ = event
        if kind in ("admission", "discharge"):
            visit = self.visits.setdefault(visit_id or "", [at, "visit", None, ""])
            if kind == "discharge":
                visit[2:] = at, text.removeprefix("discharge: ")
                return
            visit[0], (visit[1], sex) = at, admitted(text)
            self.person = [
                said for said in (sex, value and f"{number(value, 0)} years") if said
            ] or self.person
            return
        key = f"{kind}/{concept or code or text}"
        thing = self.things.get(key)
        if thing is None:
            thing = self.things[key] = Thing(concept if kind in MEASURED else None, text)
        thing.add(at, value, unit, text)

    def states(self) -> dict[str, str]:
        """What the worth of a thing is fitted on: each known thing, and where its last value lies in its range."""
        return {key: self._state(thing) or "known" for key, thing in self.things.items()}

    def text(self, now: datetime) -> str:
        ranked = []
        for key, thing in self.things.items():
            if thing.line is None:
                thing.line = self._line(thing, self.settings.worth.get(key, LEAST))
            ranked.append((thing.line[3] * 0.5 ** ((now - thing.last) / HALF_LIFE), key, thing))
        ranked.sort(reverse=True)
        said = self._situation(now)
        left = self.settings.budget - sum(self.settings.costs(line) + 1 for line in said)
        for _, _, thing in ranked:
            head, tail, cost, _ = thing.line
            if cost <= left:
                left -= cost
                said.append(f"{head}, {span(now - thing.last)} ago{tail}")
        return "\n".join(said)

    def _situation(self, now: datetime) -> list[str]:
        lines = [", ".join(self.person)] if self.person else []
        if self.visits:
            since, kind, until, left = max(self.visits.values(), key=lambda v: (v[0], v[1]))
            where = (
                f"in hospital for {span(now - since)}, {kind}"
                if until is None
                else f"left {span(now - until)} ago after {span(until - since)}, {left}"
            )
            lines.append(f"{where}; visits known: {len(self.visits)}")
        return lines

    def _state(self, thing: Thing) -> str | None:
        if thing.concept is None or not thing.readings:
            return None
        _, low, high = self.settings.concepts.get(thing.concept, (2, None, None))
        return is_normal(thing.readings[-1][1], low, high)

    def _line(self, thing: Thing, worth: float) -> tuple[str, str, int, float]:
        """What stands before and after its age, at most how many tokens the whole line takes, and the worth of one."""
        costs = self.settings.costs
        if thing.concept is None or not thing.readings:
            dose = f" {number(thing.readings[-1][1])}" if thing.readings else ""
            unit = f" {thing.unit}" if dose and thing.unit else ""
            often = f", {thing.count} times" if thing.count > 1 else ""
            cost = costs(thing.text) + len(dose) + costs(unit) + AGE + costs(often)
            return f"{thing.text}{dose}{unit}", often, cost, worth / cost
        digits, low, high = self.settings.concepts.get(thing.concept, (2, None, None))
        value, (name, unit) = thing.readings[-1][1], _named(thing)
        shown, after = f" {number(value, digits)}", f" {unit}" if unit else ""
        if state := is_normal(value, low, high):
            after += f", {state} ({_range(low, high, digits)})"
        trend, length = self._trend(thing, digits)
        cost = costs(name) + len(shown) + costs(after) + length + AGE
        return f"{name}{shown}{after}{trend}", "", cost, worth / cost

    def _trend(self, thing: Thing, digits: int) -> tuple[str, int]:
        """How the last value has changed against the oldest that is kept of the week before it; and its tokens."""
        costs, (at, value) = self.settings.costs, thing.readings[-1]
        since, before = next(r for r in thing.readings if r[0] >= at - TREND)
        if since == at:
            return "", 0
        shown, long = number(before, digits), span(at - since)
        if abs(value - before) <= ENOUGH * abs(before) or number(value, digits) == shown:
            return f", steady for {long}", 3 + costs(long)
        direction = "up" if value > before else "down"
        return f", {direction} from {shown} in {long}", 4 + len(shown) + costs(long)


def _range(low: float | None, high: float | None, digits: int) -> str:
    if low is None or high is None:
        return f"under {number(high, digits)}" if low is None else f"over {number(low, digits)}"
    return f"{number(low, digits)} to {number(high, digits)}"


def _named(thing: Thing) -> tuple[str, str]:
    """Name and unit of a measurement, of its text (`name in unit`)."""
    unit = thing.unit or ""
    if unit.startswith("{"):
        return thing.text, ""
    return thing.text.removesuffix(f" in {unit.lower()}"), unit
