"""What Ray Train and DeepSpeed cost, at start-up and for each step, against a plain PyTorch loop on the same batches.

    python -m tests.benchmarks.overhead --data <data root of a finished night>

All three train stage 2 of `tiny` in fp32 from the same weights: the parameters are their own fp32 masters, with AdamW and
clipping. The plain loop and DeepSpeed's engine run in this process, with equal losses; then the whole job's `fit` runs them
by Ray, every side with one thread. `..._s` are seconds of wall, `..._cpu_s` of CPU, medians of the steps after the 20th; start-up is all of `fit` but its
steps. `by_part` says where DeepSpeed's step goes, `plain_by_part` where the plain one's does.
"""

import json
import logging
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from orchestration import catalog
from ray_jobs.config import JobConfig
from ray_jobs.llemr.corpus import Corpus, rows_of
from ray_jobs.llemr.engine import Trainer, groups, rate
from ray_jobs.llemr.model import Llemr
from ray_jobs.llemr.packing import pack
from ray_jobs.llemr.plan import Plan
from ray_jobs.llemr.progress import SETTLED
from ray_jobs.llemr.recipe import Recipe, StageRecipe
from ray_jobs.runtime import Job
from tests.benchmarks.common import finished
from tests.benchmarks.training import alone, fresh, tiny

TOLERANCE = 1e-4


class Stopwatch:
    """Wall seconds of each part of each step."""

    def __init__(self):
        self.parts: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.parts[name].append(time.perf_counter() - started)

    def wrap(self, name: str, work: Callable) -> Callable:
        def timed(*args, **kwargs):
            with self.part(name):
                return work(*args, **kwargs)

        return timed

    def medians(self) -> dict[str, float]:
        return {name: round(statistics.median(s[SETTLED:] or s), 5) for name, s in self.parts.items()}


class Plain:
    """The loop that a page of PyTorch would have: same batches, AdamW, clipping, rates."""

    def __init__(self, model: Llemr, corpus: Corpus, plan: Plan, stage: StageRecipe, steps: int):
        self.model, self.corpus, self.plan, self.stage, self.steps = model.train(), corpus, plan, stage, steps
        self.adam = torch.optim.AdamW(
            groups(stage, model), betas=(0.9, 0.98), weight_decay=stage.weight_decay
        )
        self.watch = Stopwatch()

    def step(self, step: int) -> tuple[float, int, int]:
        with self.watch.part("data"):
            rows = self.plan.step(step)
            batch = pack(self.corpus.before, rows_of(self.corpus, rows))
            features = self.corpus.features[batch.events]
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * rate(self.stage, step, self.steps)
        with self.watch.part("forward"):
            _, loss = self.model(batch, features)
        with self.watch.part("backward"):
            (loss / self.plan.targets(rows)).backward()
        with self.watch.part("step"):
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.clip)
            self.adam.step()
            self.adam.zero_grad()
        return loss.item() / self.plan.targets(rows), sum(len(r.questions) for r in rows), batch.tokens


def timed(trainer, steps: int) -> tuple[list[float], float, float]:
    """(losses, median wall and CPU seconds of a step)."""
    losses, marks = [], [(time.perf_counter(), time.process_time())]
    for step in range(steps):
        losses.append(trainer.step(step)[0])
        marks.append((time.perf_counter(), time.process_time()))
    spent = np.diff(np.array(marks), axis=0)
    wall, cpu = np.median(spent[SETTLED:] if steps > SETTLED else spent, axis=0)
    return losses, float(wall), float(cpu)


def by_deepspeed(root: str, corpus: Corpus, recipe: Recipe, expected: list[float]) -> dict[str, object]:
    """The engine in this process; its losses must be `expected`."""
    stage, name = recipe.stage2, f"deepspeed_{recipe.zero_stage}"
    started = time.perf_counter()
    plan = Plan(corpus.questions, stage.rows, stage.withheld, 1)
    trainer = Trainer(fresh(root, "weights/stage1"), corpus, plan, stage, recipe, stage.steps)
    ready = time.perf_counter()
    watch, engine = Stopwatch(), trainer.engine
    for part in ("forward", "backward", "step"):
        setattr(engine, part, watch.wrap(part, getattr(engine, part)))
    losses, wall, cpu = timed(trainer, stage.steps)
    worst = float(np.abs(np.subtract(losses, expected)).max())
    if worst > TOLERANCE:
        raise SystemExit(f"ZeRO {recipe.zero_stage} and the plain loop differ by {worst}")
    return {
        f"{name}_start_s": round(ready - started, 2),
        f"{name}_step_s": round(wall, 5),
        f"{name}_step_cpu_s": round(cpu, 5),
        f"{name}_by_part": watch.medians(),
        f"{name}_worst_loss_difference": worst,
    }


def by_ray(root: str, recipe: Recipe, scratch: Path) -> dict[str, float]:
    """The whole job's training in a data root that shares everything with `root` but the folder of checkpoints."""
    from ray_jobs import train

    for path in Path(root).iterdir():
        if path.name not in ("training", "candidates"):
            (scratch / path.name).symlink_to(path.resolve())
    found = finished.accepted(root, *finished.NEEDS, "weights/stage1")
    keys = [*finished.NEEDS, "weights/stage1"]
    config = JobConfig(
        "train", "overhead", str(scratch), catalog.fingerprint(at=time.time()),
        {key: found.version(key) for key in keys}, ["weights/stage2"], {},
    )  # fmt: skip
    job = Job(config, scratch, logging.getLogger("overhead"), None)
    started = time.perf_counter()
    with job.ray(num_cpus=recipe.workers * recipe.cpus_per_worker), patch.object(train, "cores", lambda: 1):
        ready = time.perf_counter()
        _, figures, _ = train.fit(job, recipe, "stage2")
        ended = time.perf_counter()
    return {
        "step_s": figures["stage2_step_s"],
        "step_cpu_s": figures["stage2_step_cpu_s"],
        "ray_init_s": round(ready - started, 2),
        "fit_but_its_steps_s": round(ended - ready - recipe.stage2.steps * figures["stage2_step_s"], 2),
    }


def measure(root: str, recipe: Recipe, steps: int = 80, with_ray: bool = True) -> dict[str, object]:
    torch.set_num_threads(1)
    started = time.perf_counter()
    corpus = finished.corpus_of(root, "weights/stage1", recipe)
    loaded = time.perf_counter() - started
    stage = recipe.stage2.model_copy(update={"steps": steps, "blind_steps": 0, "checkpoint_every": 10**6})
    recipe = recipe.model_copy(update={"stage2": stage, "precision": "fp32"})
    figures: dict[str, object] = {"steps": steps, "data_load_s": round(loaded, 2)}
    started = time.perf_counter()
    plain = Plain(
        fresh(root, "weights/stage1"),
        corpus,
        Plan(corpus.questions, stage.rows, stage.withheld, 1),
        stage,
        steps,
    )
    figures["plain_start_s"] = round(time.perf_counter() - started, 2)
    expected, plain_s, plain_cpu_s = timed(plain, steps)
    figures |= {"plain_step_s": round(plain_s, 5), "plain_step_cpu_s": round(plain_cpu_s, 5)}
    figures["plain_by_part"] = plain.watch.medians()
    alone()
    for zero in (0, 2):
        changed = recipe.model_copy(update={"zero_stage": zero})
        figures |= by_deepspeed(root, corpus, changed, expected)
        share = figures[f"deepspeed_{zero}_step_s"], figures[f"deepspeed_{zero}_step_cpu_s"]
        figures[f"share_of_step_deepspeed_{zero}"] = round(1 - plain_s / share[0], 4)
        figures[f"share_of_step_cpu_deepspeed_{zero}"] = round(1 - plain_cpu_s / share[1], 4)
    if with_ray:
        for zero in (0, 2):
            with catalog.scratch("overhead") as scratch:
                ray = by_ray(
                    root, recipe.model_copy(update={"zero_stage": zero, "cpus_per_worker": 1}), scratch
                )
            figures |= {f"ray_{zero}_{name}": value for name, value in ray.items()}
            figures[f"share_of_step_ray_{zero}"] = round(1 - plain_s / ray["step_s"], 4)
            figures[f"share_of_step_cpu_ray_{zero}"] = round(1 - plain_cpu_s / ray["step_cpu_s"], 4)
    return figures


def main() -> None:
    parser = finished.parser(__doc__)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--without-ray", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print(json.dumps(measure(options.data, tiny(), options.steps, not options.without_ray)))


if __name__ == "__main__":
    main()
