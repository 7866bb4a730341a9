"""Who is asked in an evaluation, under which condition, and how: every model with its own tokenizer, encoder and budget.

Contestants are independent, so each is asked as one piece of work on Ray, by as many workers as there are CPUs (or GPUs).
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from orchestration import catalog
from ray_jobs import config, metrics
from ray_jobs.config import JobError
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.data import EVENT_COLUMNS, EventStore, dictionary, read_frames, text_vectors
from ray_jobs.runtime import Job

Place = tuple[str, str]  # question set and split
CLOSES_WITHIN_S = 10
SETS = ("schema_alignment", "clinical_reasoning")
CONCEPTS = str(catalog.REPOSITORY / "dbt_project" / "seeds" / "concepts.csv")


@dataclass(frozen=True)
class Contestant:
    """Weights (`folder` of the version directory of `key`) under a condition: `control` is None (their own record),
    `withheld` (none) or `swapped` (another patient's)."""

    row: str
    key: str
    folder: str = ""
    control: str | None = None
    sets: tuple[str, ...] = SETS


@dataclass(frozen=True)
class Sheet:
    """Questions to be answered, [n]; `swap` says whose record stands in for each one's own, None where nobody's does."""

    questions: pl.DataFrame
    swap: list[tuple[str, str, object] | None] | None = None


def of(job: Job) -> list[Contestant]:
    """All contestants whose weights are there, the longest work first. Stage 1 has learned schema questions only, so its
    controls are asked on those."""
    stage1, stage2, schema = "weights/stage1", "weights/stage2", SETS[:1]
    found = [
        Contestant(metrics.CHAMPION, "weights/champion"),
        Contestant(metrics.STAGE2, stage2),
        Contestant(metrics.swapped(metrics.STAGE2), stage2, control="swapped"),
        Contestant(metrics.STAGE1, stage1),
        Contestant(metrics.swapped(metrics.STAGE1), stage1, control="swapped", sets=schema),
        Contestant(metrics.ALIGNED, stage1, "aligned", sets=schema),
        Contestant(metrics.TRAINED_BLIND, stage2, "blind", control="withheld"),
        Contestant(metrics.withheld(metrics.STAGE2), stage2, control="withheld"),
        Contestant(metrics.withheld(metrics.STAGE1), stage1, control="withheld", sets=schema),
    ]
    return [c for c in found if c.key in job.config.inputs and (job.path(c.key) / c.folder).is_dir()]


def ask_all(
    job: Job, work: Sequence[tuple[Contestant, Mapping[Place, Sheet]]], visits: pl.DataFrame
) -> Iterator[tuple[Contestant, dict[Place, list[str]]]]:
    """Ask every contestant on Ray; yields each with its answers by place, in no particular order.

    visits: columns hospital, visit_id: all whose records may be read. Parameters of the job: `cpus_per_worker` (1),
    `gpus_per_worker` (0).
    """
    import ray

    cpus, gpus = int(job.params.get("cpus_per_worker", 1)), int(job.params.get("gpus_per_worker", 0))
    with job.ray():
        resources = ray.cluster_resources()
        room = resources.get("GPU", 0) // gpus if gpus else resources["CPU"] // cpus
        if room < 1:
            raise JobError(
                f"Ray has no worker of {cpus} CPUs and {gpus} GPUs; mend params of the evaluation's defs.yaml"
            )
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus)(Asker)
        askers = [remote.remote(job.config.url, visits, cpus) for _ in range(min(int(room), len(work)))]
        pool = ray.util.ActorPool(askers)
        try:
            yield from pool.map_unordered(lambda asker, task: asker.answers.remote(*task), list(work))
        finally:
            closing = [asker.close.remote() for asker in askers]
            ray.wait(closing, num_returns=len(closing), timeout=CLOSES_WITHIN_S)


class Asker:
    """A worker: reads the records of the visits once, and puts questions to one set of weights at a time."""

    def __init__(self, config_url: str, visits: pl.DataFrame, threads: int):
        torch.set_num_threads(threads)
        self.scratch = tempfile.TemporaryDirectory(
            prefix="wardline-asker-", dir=os.environ.get("WARDLINE_SCRATCH")
        )
        self.job = Job(
            config.read(config_url), Path(self.scratch.name), logging.getLogger("wardline.asker"), None
        )
        events = read_frames(self.job.files("harmonised/events"), EVENT_COLUMNS)
        self.events = EventStore.of(
            events.join(visits, on=["hospital", "visit_id"], how="semi"), dictionary(CONCEPTS)
        )

    def answers(
        self, contestant: Contestant, sheets: Mapping[Place, Sheet]
    ) -> tuple[Contestant, dict[Place, list[str]]]:
        """One answer a question, decoded greedily; '' where a swapped record was wanted and there is none."""
        folder = self.job.path(contestant.key) / contestant.folder
        model = checkpoint.load(folder)
        vectors = self._vectors(contestant.key, model.weights.features.texts_of(self.events))
        return contestant, {
            place: self._answered(model, vectors, contestant, s) for place, s in sheets.items()
        }

    def _answered(self, model, vectors: np.ndarray, contestant: Contestant, sheet: Sheet) -> list[str]:
        if sheet.swap is None:
            return model.answer(sheet.questions, self.events, vectors, contestant.control)
        has = pl.Series([s is not None for s in sheet.swap], dtype=pl.Boolean)
        kept = [s for s in sheet.swap if s is not None]
        said = iter(model.answer(sheet.questions.filter(has), self.events, vectors, None, kept))
        return [next(said) if h else "" for h in has]

    def _vectors(self, key: str, texts: list[str]) -> np.ndarray:
        """Vectors of these texts by the encoder with which these weights were trained.

        Raises JobError if the evaluation does not read that encoder's embeddings.
        """
        encoder = checkpoint.encoder_of(self.job.path(key))
        if encoder not in self.job.config.inputs:
            raise JobError(f"{key} was trained with {encoder}; add it to deps in the evaluation's defs.yaml")
        return text_vectors(str(self.job.path(encoder)), texts)

    def close(self) -> None:
        self.scratch.cleanup()
