"""The function that Ray Train runs on each worker: one stage, from its start or from its last checkpoint.

Stage 1 aligns the projector with the base model's dialect and then trains it alone on questions. Stage 2 trains language
model and projector, and after that the blind control: the same recipe from the same base model, without any event. A
checkpoint holds the phase that runs and its step, and the phases that are finished as safetensors.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import ray
import ray.train
import safetensors.torch
import torch

from ray_jobs.config import JobError
from ray_jobs.llemr import adapters, checkpoint, memory
from ray_jobs.llemr.align import align
from ray_jobs.llemr.corpus import Corpus, dialect_events
from ray_jobs.llemr.due import Due
from ray_jobs.llemr.engine import Trainer
from ray_jobs.llemr.guard import Guard, LossWentWrong
from ray_jobs.llemr.model import Llemr
from ray_jobs.llemr.plan import Plan
from ray_jobs.llemr.progress import Pace
from ray_jobs.llemr.recipe import Recipe


def run(spec: Mapping[str, object]) -> None:
    """Train one stage.

    `spec`: recipe (content), stage, source (see `Corpus.load`), start and base (weights directories), threads, board.
    The last report carries a checkpoint with `<phase>.safetensors` for every phase; if the loss went wrong the board is
    told, and there is none.
    """
    torch.set_num_threads(int(spec["threads"]))
    Stage(spec).run()


def out_of_memory(error: BaseException) -> bool:
    """Also of a CPU, where torch raises no class of its own."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class Stage:
    """One stage on one worker."""

    def __init__(self, spec: Mapping[str, object]):
        self.spec = spec
        self.recipe = Recipe.of(spec["recipe"])
        self.name = str(spec["stage"])
        self.stage = self.recipe.stage(self.name)
        self.rank = ray.train.get_context().get_world_rank()
        self.done: dict[str, dict[str, torch.Tensor]] = {}
        self.figures: dict[str, float] = {}

    def run(self) -> None:
        if ray.get(self.spec["board"].stopped.remote()):
            return  # another try after a failure that has a name
        resumed = ray.train.get_checkpoint()
        with resumed.as_directory() if resumed else tempfile.TemporaryDirectory() as folder:
            found = self._found(Path(folder)) if resumed else {}
            try:
                self._phases(found, Path(folder))
            except LossWentWrong as error:
                self._stop(f"{error}; lower the learning rate in the recipe")
                return
            except JobError as error:  # of this worker alone, as below
                self._stop(str(error))
                raise
            except (MemoryError, RuntimeError) as error:
                if out_of_memory(error):  # of this worker alone, so the others are ended by the failure
                    self._stop(
                        f"{self.name}: out of memory; lower {self.name}.micro_batch_rows in the recipe"
                    )
                raise
        self._report("finished", 0)

    def _stop(self, reason: str) -> None:
        ray.get(self.spec["board"].stop.remote(reason))

    def _phases(self, found: Mapping[str, object], folder: Path) -> None:
        weights = self._weights("start")
        self._must_fit_here(weights)
        corpus = Corpus.load(self.spec["source"], weights)
        longest = max(map(len, corpus.questions.records))
        self._say(f"longest record {longest} events, event_budget {weights.settings['event_budget']}")
        for phase, steps, withheld in self._plan():
            if phase not in self.done:
                plan = Plan(corpus.questions, self.stage.rows, withheld, self.recipe.seed)
                self._phase(phase, steps, plan, weights, corpus, found, folder)
            # the next phase has weights of its own, in the room of these
            weights.lm = weights.projector = None
            gc.collect()  # an engine refers to itself
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _must_fit_here(self, weights: checkpoint.Weights) -> None:
        """The recipe says what a worker has; this machine may have less. Raises JobError."""
        if not torch.cuda.is_available():
            return
        model, context = weights.model(), ray.train.get_context()
        sizes = (sum(p.numel() for p in part.parameters()) for part in (model.lm, model.projector))
        host = memory.available_gb() / context.get_local_world_size()
        memory.must_fit(self.recipe, self.name, model.lm.config, *sizes, free=memory.gpu_free_gb(), host=host)

    def _phase(
        self,
        phase: str,
        steps: int,
        plan: Plan,
        weights: checkpoint.Weights,
        corpus: Corpus,
        found: Mapping[str, object],
        folder: Path,
    ) -> None:
        """Nothing of what it built is left when it returns but the trained parameters, on the CPU."""
        goes_on = found.get("phase") == phase
        first, saved_by = (found["step"], found["workers"]) if goes_on else (0, None)
        guard = Guard(**found["guard"]) if goes_on else Guard()
        model = self._model(phase, weights, corpus)
        trainer = Trainer(model, corpus, plan, self.stage, self.recipe, steps, saved_by)
        if saved_by:
            trainer.load(folder)
        self._train(trainer, phase, first, steps, guard)
        trainer.close()

    def _plan(self) -> list[tuple[str, int, float]]:
        phases = [(self.name, self.stage.steps, self.stage.withheld)]
        return phases + ([("blind", self.stage.blind_steps, 1.0)] if self.stage.blind_steps else [])

    def _model(self, phase: str, weights: checkpoint.Weights, corpus: Corpus) -> Llemr:
        torch.manual_seed(self.recipe.seed)
        model = (self._weights("base") if phase == "blind" else weights).model()
        if phase == "stage1":
            self._align(weights, model, corpus)
        if phase == "blind":
            model.projector.requires_grad_(False)
        if phase == "stage1" or self.stage.train == "projector":
            model.lm.requires_grad_(False)
        elif self.stage.train == "lora":
            adapters.add(model.lm, self.stage)
        return model

    def _align(self, weights: checkpoint.Weights, model: Llemr, corpus: Corpus) -> None:
        """The same on every worker, and done again on resuming: it takes seconds."""
        events = dialect_events(weights, corpus.store)
        if events is None or not self.stage.align_steps:
            return
        embedding = model.lm.get_input_embeddings().weight
        args = (embedding, corpus.train_events(), self.stage.align_steps, self.recipe.seed)
        left = align(model.projector, corpus.features, events, *args)
        self._say(f"projector aligned with the base model's dialect, {left:.2%} of the variance unexplained")
        self.figures["unexplained"] = round(left, 5)
        self.done["aligned"] = {f"projector.{k}": v.clone() for k, v in model.projector.state_dict().items()}

    def _train(self, trainer: Trainer, phase: str, first: int, steps: int, guard: Guard) -> None:
        self._say(
            f"{phase}: {'goes on at' if first else 'starts,'} step {first} of {steps}, process {os.getpid()}"
        )
        pace, due = Pace(first, steps, trainer.operations, trainer.workers), Due(self.stage, trainer.agreed)
        for step in range(first, steps):
            loss, questions, tokens = trainer.step(step)
            try:
                guard.see(loss)
            except LossWentWrong as error:
                raise LossWentWrong(f"{phase}: step {step + 1}: {error}") from None
            pace.add(questions, tokens)
            if self.rank == 0:
                self.spec["board"].step.remote(phase, step + 1, {"loss": loss, **pace.now(tokens)})
                if pace.due() or step + 1 == steps:
                    self._say(f"{phase}: {pace.line(step + 1, guard.usual)}")
            if step + 1 < steps and due(step + 1):
                self._report(phase, step + 1, trainer, guard)
        self.figures[f"{phase}_loss"] = loss
        self.figures |= {f"{phase}_{name}": value for name, value in pace.figures().items()}
        self.done[phase] = trainer.state()
        if (phase, steps) != self._plan()[-1][:2]:
            self._report(phase, steps)

    def _report(
        self, phase: str, step: int, trainer: Trainer | None = None, guard: Guard | None = None
    ) -> None:
        """A checkpoint: the engine's parts of every rank, and from rank 0 what is finished."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            if trainer:
                trainer.save(folder)
            if self.rank == 0:
                for name, state in self.done.items():
                    safetensors.torch.save_file(state, folder / f"{name}.safetensors")
                workers = ray.train.get_context().get_world_size()
                content = {
                    "phase": phase if trainer else None,
                    "step": step,
                    "workers": workers,
                    "guard": asdict(guard) if guard else None,
                    "figures": self.figures,
                }
                (folder / "phase.json").write_text(json.dumps(content))
            ray.train.report(
                {"phase": phase, "step": step, **self.figures},
                checkpoint=ray.train.Checkpoint.from_directory(scratch),
                checkpoint_dir_name=f"{phase}-{step:06d}",
            )

    def _found(self, folder: Path) -> dict[str, object]:
        content = json.loads((folder / "phase.json").read_text())
        self.figures = content["figures"]
        self.done = {path.stem: safetensors.torch.load_file(path) for path in folder.glob("*.safetensors")}
        return content

    def _weights(self, which: str) -> checkpoint.Weights:
        dtype = torch.float32 if self.recipe.precision == "fp32" else torch.bfloat16
        return checkpoint.load_weights(checkpoint.fetched(self.spec[which]), dtype, self.recipe.attention)

    def _say(self, line: str) -> None:
        if self.rank == 0:
            self.spec["board"].say.remote(line)
