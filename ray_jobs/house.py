"""A scratch data root over a finished night, for studies and for the folds of a cross-validation: it takes over what the night
accepted, and the same jobs run in it.

Nothing is published in the night's own root; what is trained here is gone with its folder.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import fsspec

from orchestration import catalog
from ray_jobs import train
from ray_jobs.config import JobConfig
from ray_jobs.contestants import SETS
from ray_jobs.llemr.recipe import Recipe
from ray_jobs.runtime import Job

EVENTS, MINILM = "harmonised/events", "embeddings/minilm"
INSTRUCTIONS = tuple(f"instructions/{name}" for name in SETS)
STAGES = ("weights/base_model", "weights/stage1", "weights/stage2")


class House:
    """The data root `root`, with the accepted files of the keys `taken` of the data root `night`, which may be any URL.

    Raises catalog.CatalogError if the night has accepted no version of a key.
    """

    def __init__(self, root: Path, night: str, taken: Sequence[str], log: logging.Logger):
        self.root, self.log = root, log
        accepted = catalog.load(night)
        kept = {key: accepted.entry(key) for key in taken}
        for entry in kept.values():
            for file in entry["files"]:
                target = root / file["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                with (
                    fsspec.open(catalog.join(night, file["path"]), "rb") as source,
                    target.open("wb") as copy,
                ):
                    shutil.copyfileobj(source, copy)
        with catalog.edit(str(root)) as content:
            content["accepted"].update(kept)

    def path(self, key: str) -> Path:
        return Path(catalog.load(str(self.root)).folder(key))

    def files(self, key: str) -> list[str]:
        return catalog.load(str(self.root)).files(key)

    def publish(self, key: str, folder: Path, why: str) -> None:
        candidate = catalog.Candidate(key, folder, catalog.fingerprint(why=why, key=key), table=False)
        catalog.publish(str(self.root), "study", [candidate])

    def enter(self, key: str, file: Path) -> None:
        """Let a table's key name this one file, past the gate: it wants short questions, and these hold a record."""
        found = {"version": "in-words", "files": [{"path": file.relative_to(self.root).as_posix()}]}
        with catalog.edit(str(self.root)) as content:
            content["accepted"][key] |= found

    def job(
        self,
        module: ModuleType,
        outputs: Sequence[str],
        needs: Sequence[str],
        why: str,
        params: Mapping[str, object],
    ) -> None:
        """Run a job for its outputs, whose versions replace the standing ones of this root."""
        accepted = catalog.load(str(self.root))
        inputs = {need: accepted.version(need) for need in needs}
        fingerprint = catalog.fingerprint(why=why, inputs=inputs, params=params)
        name = module.__name__.split(".")[-1]
        config = JobConfig(name, "study", str(self.root), fingerprint, inputs, list(outputs), dict(params))
        config.write()
        with catalog.scratch("study") as scratch:
            module.run(Job(config, scratch, self.log, None))

    def stage(self, stage: str, embeddings: str, why: str, recipe: Recipe) -> Path:
        """Train one stage; returns a copy of its weights, which the next variant does not replace."""
        needs = (EVENTS, *INSTRUCTIONS, embeddings, *STAGES[:2])
        needs = needs[: None if stage == "stage2" else -1]
        params = {"recipe": recipe.model_dump(), "stage": stage}
        self.job(train, [f"weights/{stage}"], needs, why, params)
        return self.kept(f"weights/{stage}", why)

    def kept(self, key: str, why: str) -> Path:
        target = self.root / "variants" / why / key
        shutil.copytree(self.path(key), target)
        return target
