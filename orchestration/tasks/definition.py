"""The keys of a task's YAML, and the one place where such files are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from orchestration import wording
from orchestration.wording import LayoutError, relative

FOLDER = "tasks"
PUBLISHED = "_as_published"
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Icd10 = Annotated[str, StringConstraints(pattern=r"^[A-Z][0-9][0-9A-Z]{0,5}$")]


class Outcome(BaseModel):
    """What happens: a diagnosis below one of these ICD-10-CM codes, or an event of the timeline."""

    model_config = ConfigDict(extra="forbid")
    icd10: list[Icd10] = []
    kind: str | None = None
    concept: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Outcome:
        if bool(self.icd10) == bool(self.kind):
            raise ValueError("needs either icd10 or kind")
        return self


class Task(BaseModel):
    """One definition, as its file gives it."""

    model_config = ConfigDict(extra="forbid")
    description: str
    source: str = Field(description="Where the definition comes from.")
    version: str
    variant: str = Field(default="as_published", pattern="^(as_published|corrected)$")
    cohort: str
    concept: str | None = Field(default=None, description="Of cohort results: the concept of the result.")
    trigger: str = Field(description="The time from which the task counts.")
    predict_at: str = Field(description="Nothing known later may be read for it.")
    horizon: str = Field(
        description="An interval after predict_at, or a time: until when the outcome may come."
    )
    outcome: Outcome | None = None
    label: str
    exclude: dict[Name, str] = {}
    groups: dict[str, str] = Field(
        default={}, description="CCSR categories and their names: one label each, column code_group."
    )
    question: str | None = Field(
        default=None,
        description="How a language model is asked, yes or no; {group} is the name of a category.",
    )

    def asked(self, group: str | None = None) -> str:
        """The question about one group, or about the task; without one in the file it is the description."""
        question = self.question or ("{group}: " if self.groups else "") + self.description.lower()
        return question.replace("{group}", self.groups[group]) if group else question


def read(project: Path) -> dict[str, Task]:
    """Name to task of every file, variants apart. Raises LayoutError: one line naming file, key and mend."""
    tasks = {}
    for path in sorted((project / FOLDER).glob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            published = content.pop("as_published", None)
            tasks[path.stem] = Task(**content)
            if published is not None:
                if tasks[path.stem].variant != "corrected":
                    raise LayoutError(f"{relative(path)}: as_published: needs variant: corrected beside it")
                tasks[path.stem + PUBLISHED] = Task(**{**content, "variant": "as_published", **published})
        except ValidationError as error:
            raise LayoutError(wording.mistake(path, error, Task.model_fields)) from None
        except (yaml.YAMLError, AttributeError, TypeError):
            raise LayoutError(
                f"{relative(path)}: is not a YAML mapping; mend its indentation or quotes"
            ) from None
    return tasks
