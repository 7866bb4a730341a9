"""One question form, as written in `templates/*.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ray_jobs.questions.facts import period_of


class Tolerance(BaseModel):
    """How far a numeric answer may be off: half a last printed digit, a share of the value, or hours; the widest counts."""

    model_config = ConfigDict(extra="forbid")
    digits: float = 0.5
    relative: float = 0.0
    hours: float = 0.0


class Template(BaseModel):
    """A question form. What may be written is closed: see `templates/README.md` for each key."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    family: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    operator: str
    subject: str
    answer: Literal["number", "time", "yes_no", "category", "set"]
    wording: list[str] = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0)
    times: int = Field(default=1, ge=1)
    # what some operators ask for
    end: Literal["first", "last"] | None = None
    periods: list[str] = ["all"]
    statistic: Literal["max", "min", "mean", "median", "sum", "range"] | None = None
    compare: Literal["previous", "first"] | None = None
    drug: str | None = None
    side: Literal["before", "after"] | None = None
    terms: dict[str, float] = {}
    over: str | None = None
    limits: list[float] = []
    pool: list[str] = []
    # how the answer is printed and scored
    unit: str | None = None
    digits: int | None = None
    tolerance: Tolerance = Tolerance()
    working: Literal["values", "hours"] | None = None
    # which of the possible questions are drawn
    classes: dict[str, float] = {}
    counter: float | None = Field(default=None, gt=0, lt=1)
    thin: dict[str, float] = {}
    contrast: list[Literal["item", "other", "period"]] = Field(default=[], max_length=2)
    absent: float = Field(default=0.0, ge=0, lt=1)
    absent_pool: list[str] = []
    absent_slot: Literal["item", "other"] = "item"
    shortcut: str | None = None
    starts: list[float] = Field(default=[0.5, 0.25, 0.15, 0.1], min_length=1)

    @model_validator(mode="after")
    def _periods_are_known(self) -> Template:
        for period in self.periods:
            period_of(period)
        return self
