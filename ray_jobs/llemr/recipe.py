"""Recipes: one YAML file says what a model is and how it is trained. Read strictly: an unknown key is an error.

`ray_jobs/recipes/<name>.yaml` is the file; `Recipe.of` reads its content. Steps are counts, never seconds, so that the
same recipe gives the same model on a slow machine. Batches are global: they do not change with the number of workers.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ray_jobs.config import PACKAGE, JobError

FOLDER = PACKAGE / "recipes"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BaseModelRecipe(_Strict):
    """The base language model: a local Hugging Face directory, or the tiny Llama trained here from scratch."""

    path: str | None = None  # a local directory or an fsspec URL; then all from `layers` on is unused
    chat_template: str | None = None  # Jinja, for a model at `path` whose tokenizer has none
    layers: PositiveInt = 4
    width: PositiveInt = 128
    heads: PositiveInt = 4
    mlp: PositiveInt = 344
    vocabulary: PositiveInt = 4000
    replicas: PositiveInt = 6  # altered copies of the train split's records that it learns to read
    steps: PositiveInt = 1400
    batch_tokens: PositiveInt = 1280
    start_events: PositiveInt = (
        8  # events a record at the start; grows by a seventh whenever accuracy passes grow_at
    )
    grow_at: float = Field(0.65, gt=0, lt=1)
    withheld: float = Field(
        0.08, ge=0, lt=1
    )  # share of records read without their events, so that this is known too
    balance: float = Field(0.0, ge=0, le=1)  # 0 reads records as they come, 1 every family of questions alike
    lr_matrices: PositiveFloat = 0.008  # Muon
    lr_rest: PositiveFloat = 0.0015  # AdamW: embeddings and norms
    threads: PositiveInt | None = None  # by default all cores
    precision: Literal["fp32", "bf16"] = "fp32"  # of reading; bf16 is by autocast, for CPUs with AVX512-BF16


class StageRecipe(_Strict):
    """One fine-tuning stage."""

    sets: list[Literal["schema_alignment", "clinical_reasoning", "tasks"]] = Field(min_length=1)
    steps: PositiveInt
    rows: PositiveInt  # records a step, over all workers, each with up to 8 of its questions
    micro_batch_rows: PositiveInt = 64  # records a forward pass on one worker; more are accumulated
    lr: PositiveFloat  # of the language model, and of the projector unless lr_projector is given
    lr_projector: PositiveFloat | None = None
    warmup: int = Field(20, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: PositiveFloat = 1.0
    withheld: float = Field(0.08, ge=0, lt=1)  # share of rows trained without their events
    align_steps: int = Field(
        0, ge=0
    )  # stage 1: steps of the projector's hidden layer on the base model's dialect
    blind_steps: int = Field(0, ge=0)  # stage 2: steps of the control that is trained without any event
    checkpoint_every: PositiveInt | None = None  # steps; 100 where no minutes are given
    checkpoint_minutes: PositiveFloat | None = None  # alone, or beside the steps
    gradient_checkpointing: bool = False
    train: Literal["all", "lora", "projector"] = "all"  # in stage 2; stage 1 trains the projector alone
    lora_rank: PositiveInt = 64
    lora_alpha: PositiveInt = 128

    @property
    def steps_a_checkpoint(self) -> int | None:
        return self.checkpoint_every or (None if self.checkpoint_minutes else 100)

    def micro_batches(self, workers: int) -> int:
        """Forward passes of a step on each of so many workers."""
        return math.ceil(self.rows / workers / self.micro_batch_rows)

    @model_validator(mode="after")
    def _the_control_trains_something(self) -> StageRecipe:
        if self.train == "projector" and self.blind_steps:
            raise ValueError(
                "the blind control has no events to project; set blind_steps to 0 or train to lora"
            )
        return self


class Recipe(_Strict):
    """A whole recipe. Stages that a job does not use are absent."""

    name: str
    hardware: str  # for the reader: what it was written for
    seed: int = 1
    event_budget: PositiveInt = 96
    token: Literal["wardline", "v1"] = (
        "wardline"  # of an event; v1 is Llemr's, and needs `with_values` embeddings
    )
    # answers begin with the numbers that they rest on, where the form of the question has a working
    working: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    attention: Literal["sdpa", "flex_attention"] = "sdpa"  # flex is for GPUs and long rows; the same loss
    row_length: PositiveInt = 256  # most positions of a packed row, unless one record is longer
    zero_stage: Literal[0, 1, 2, 3] = 2
    offload: Literal["none", "optimizer", "all"] = (
        "none"  # to the host's memory: AdamW's states and fp32 weights; with `all` (ZeRO 3) the weights too
    )
    workers: PositiveInt = 1
    min_workers: PositiveInt | None = None  # elastic: start, and go on after a failure, with as few as this
    gpus_per_worker: int = Field(0, ge=0)
    cpus_per_worker: PositiveInt = 2
    memory_per_worker_gb: PositiveFloat  # what a worker may use: on the GPU, or of RAM without one
    max_failures: int = Field(2, ge=0)
    base_model: BaseModelRecipe | None = None
    stage1: StageRecipe | None = None
    stage2: StageRecipe | None = None
    predictor: StageRecipe | None = None  # from the champion: yes/no questions of the tasks

    @property
    def says(self) -> str:
        """The column of the instructions that is taught."""
        return "says" if self.working else "answer"

    @model_validator(mode="after")
    def _offload_has_a_stage(self) -> Recipe:
        least = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < least:
            raise ValueError(f"offload is {self.offload}, which needs zero_stage {least} or more")
        return self

    @model_validator(mode="after")
    def _rows_divide(self) -> Recipe:
        if self.min_workers and self.min_workers > self.workers:
            raise ValueError(f"min_workers is {self.min_workers}, which is more than workers, {self.workers}")
        for name in ("stage1", "stage2", "predictor"):
            stage = getattr(self, name)
            if stage and stage.rows % self.workers:
                raise ValueError(
                    f"{name}.rows is {stage.rows}, which {self.workers} workers cannot share evenly"
                )
            for count in range(self.min_workers or self.workers, self.workers + 1) if stage else ():
                if stage.rows // count < stage.micro_batches(count):
                    raise ValueError(
                        f"{name}.micro_batch_rows is {stage.micro_batch_rows}: of {stage.rows} rows a step one of {count} "
                        f"workers would have none in a forward pass; set it to {stage.micro_batch_rows + 1} or more"
                    )
        return self

    @classmethod
    def of(cls, content: Mapping[str, object]) -> Recipe:
        """Raises JobError naming the recipe, the key and the mend."""
        name = content.get("name", "without a name")
        try:
            return cls.model_validate(dict(content))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            where = f"recipe {name}: {key}: " if key else f"recipe {name}: "
            message = first["msg"].removeprefix("Value error, ")
            raise JobError(f"{where}{message}{_nearest(first['loc'])}") from None

    @classmethod
    def named(cls, name: str, **changes: object) -> Recipe:
        """The recipe in `ray_jobs/recipes/<name>.yaml`. Raises JobError naming the recipes that there are."""
        file = FOLDER / f"{name}.yaml"
        if not file.is_file():
            known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.yaml")))
            raise JobError(f"no recipe {name!r}; there are {known}")
        return cls.of(yaml.safe_load(file.read_text(encoding="utf-8")) | changes)

    def zero(self, frozen: bool) -> int:
        """The ZeRO stage. A frozen language model stays whole: ZeRO 3 would gather all of it at every step for nothing."""
        return min(self.zero_stage, 2) if frozen else self.zero_stage

    def stage(self, name: str) -> StageRecipe:
        stage = getattr(self, name, None)
        if stage is None:
            raise JobError(
                f"recipe {self.name}: {name} is missing; add it, or list it under `stages` of the asset"
            )
        return stage


def _nearest(location: tuple) -> str:
    known = {*Recipe.model_fields, *StageRecipe.model_fields, *BaseModelRecipe.model_fields}
    near = (
        difflib.get_close_matches(str(location[-1]), sorted(known - {location[-1]}), n=1) if location else []
    )
    return f"; did you mean {near[0]}?" if near and str(location[-1]) not in known else ""
