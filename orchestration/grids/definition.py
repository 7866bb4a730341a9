"""The keys of a grid's YAML, and the one place where such files are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration import wording
from orchestration.dictionary import read_csv
from orchestration.wording import LayoutError, near, relative

FOLDER = "grids"
LENGTH = re.compile(r"^(\d+) (minute|hour|day)s?$")
MINUTES = {"minute": 1, "hour": 60, "day": 1440}
SHORTEST, LONGEST = 5, 1440
NAME = re.compile(r"^[a-z][a-z0-9_]*$")
CLOCKS = {"icu_stays": "stay", "visits": "visit"}


class Grid(BaseModel):
    """One sampling rate, as its file gives it."""

    model_config = ConfigDict(extra="forbid")
    description: str = Field(description="What the grid is for.")
    over: Literal["icu_stays", "visits"] = Field(
        description="Whose steps: each ICU stay's, or each visit's from admission to discharge, wards and ICU alike."
    )
    every: str = Field(description="Length of a step, 5 minutes to 1 day, such as 15 minutes.")
    long: bool = Field(default=False, description="Also as one row a step and known concept.")
    concepts: list[str] = Field(default=[], description="By default those marked wide in seeds/concepts.csv.")

    @property
    def minutes(self) -> int:
        number, unit = LENGTH.match(self.every.strip()).groups()
        return int(number) * MINUTES[unit]

    @property
    def clock(self) -> str:
        return CLOCKS[self.over]

    @property
    def moment(self) -> str:
        """Name of the column that counts the steps."""
        return "hour" if self.minutes == 60 else "step"


def read(project: Path) -> dict[str, Grid]:
    """Name to grid of every file, with its concepts spelled out. Raises LayoutError: one line naming file, key and mend."""
    dictionary = read_csv(project / "seeds" / "concepts.csv")
    return {path.stem: _read(path, dictionary) for path in sorted((project / FOLDER).glob("*.yaml"))}


def _read(path: Path, dictionary: list[dict[str, str]]) -> Grid:
    def wrong(key: str, says: str) -> LayoutError:
        return LayoutError(f"{relative(path)}: {key}: {says}")

    try:
        grid = Grid(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise LayoutError(wording.mistake(path, error, Grid.model_fields)) from None
    except (yaml.YAMLError, TypeError):
        raise LayoutError(
            f"{relative(path)}: is not a YAML mapping; mend its indentation or quotes"
        ) from None
    if not NAME.match(path.stem):
        raise LayoutError(f"{relative(path)}: names a table; use lower case letters, digits and _")
    if not LENGTH.match(grid.every.strip()):
        raise wrong("every", f"{grid.every!r} is no length; write one such as 15 minutes, 1 hour or 1 day")
    if not SHORTEST <= grid.minutes <= LONGEST:
        raise wrong("every", f"{grid.every} is out of range; write a length from 5 minutes to 1 day")
    if path.stem.endswith("_hourly") and grid.minutes != 60:
        raise wrong("every", f"{grid.every} in a grid that is named hourly; copy the file to another name")
    known = [row["concept"] for row in dictionary]
    for concept in grid.concepts:
        if concept not in known:
            raise wrong("concepts", f"{concept!r} is not in seeds/concepts.csv; {near(concept, known)}")
    marked = [row["concept"] for row in dictionary if row["wide"]]
    return grid.model_copy(update={"concepts": grid.concepts or marked})
