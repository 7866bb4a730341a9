"""DeepSpeed around a model: the same few calls on a laptop's CPU and on GPUs, for any ZeRO stage.

The batch is global: every worker takes its share of a step's rows, losses are divided by the trained tokens of the whole
step, and gradients are averaged over workers, so that one worker and many follow the same curve.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from ray_jobs.llemr.corpus import Corpus, rows_of
from ray_jobs.llemr.model import Llemr
from ray_jobs.llemr.packing import Batch, pack
from ray_jobs.llemr.plan import Plan, Row
from ray_jobs.llemr.recipe import Recipe, StageRecipe


def deepspeed():
    """DeepSpeed, ready for a machine without GPU or compiler if there is no GPU."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = (
            False  # it would be compiled, and needs ninja
        )
    return deepspeed


class Trainer:
    """One phase of training on one worker: a DeepSpeed engine, a plan, and a rate that follows the step count."""

    def __init__(
        self, model: Llemr, corpus: Corpus, plan: Plan, stage: StageRecipe, recipe: Recipe, steps: int
    ):
        self.corpus, self.plan, self.stage, self.recipe, self.steps = corpus, plan, stage, recipe, steps
        self.workers, self.rank = dist.get_world_size(), dist.get_rank()
        self.micro_batches = math.ceil(stage.rows / self.workers / stage.micro_batch_rows)
        ds = deepspeed()
        ds.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)
        if stage.gradient_checkpointing:
            model.lm.gradient_checkpointing_enable({"use_reentrant": False})
        self.engine, *_ = ds.initialize(
            model=model, model_parameters=self._groups(model), config=self._config()
        )
        self.engine.train()

    def step(self, step: int) -> tuple[float, int, int]:
        """Take one step; returns (mean loss of a trained token over all workers, questions, real tokens)."""
        rows = self.plan.step(step)
        targets = self.plan.targets(rows)
        mine = rows[self.rank :: self.workers]
        for group in self.engine.optimizer.param_groups:
            group["lr"] = group["peak"] * self._rate(step)
        total, tokens = torch.zeros(()), 0
        for part in parts(mine, self.micro_batches):
            batch = to_device(pack(self.corpus.before, rows_of(self.corpus, part)), self.engine.device)
            features = self.corpus.features[batch.events].to(self.engine.device)
            _, loss = self.engine(batch, features)
            # engine.backward divides by the number of micro-batches, and gradients are averaged over workers
            self.engine.backward(loss * (self.workers * self.micro_batches / targets))
            self.engine.step()
            total += loss.detach().float().cpu()
            tokens += batch.tokens
        counts = torch.tensor([float(total), float(tokens)], device=self.engine.device)
        dist.all_reduce(counts)
        return counts[0].item() / targets, sum(len(row.questions) for row in rows), int(counts[1].item())

    def save(self, folder: Path, step: int) -> None:
        """Every rank writes its part; `load` on as many workers goes on from `step`."""
        self.engine.save_checkpoint(
            str(folder), tag="state", client_state={"next_step": step}, save_latest=False
        )

    def load(self, folder: Path) -> int:
        """Returns the step to go on with."""
        _, client = self.engine.load_checkpoint(str(folder), tag="state")
        return int(client["next_step"])

    def state(self) -> dict[str, torch.Tensor]:
        """The trained parameters, gathered from all ranks, on the CPU; tied ones once."""
        ds = deepspeed()
        module, found = self.engine.module, {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            with ds.zero.GatheredParameters([parameter], enabled=self.recipe.zero_stage == 3):
                found[name] = parameter.detach().cpu().clone()
        return found

    def _rate(self, step: int) -> float:
        """Linear warm-up, then cosine to a twentieth."""
        if step < self.stage.warmup:
            return (step + 1) / self.stage.warmup
        done = (step - self.stage.warmup) / max(1, self.steps - self.stage.warmup)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))

    def _groups(self, model: nn.Module) -> list[dict]:
        rates = {"projector": self.stage.lr_projector or self.stage.lr, "lm": self.stage.lr}
        groups = [
            {
                "params": [p for p in getattr(model, part).parameters() if p.requires_grad],
                "lr": rate,
                "peak": rate,
            }
            for part, rate in rates.items()
        ]
        return [group for group in groups if group["params"]]

    def _config(self) -> dict:
        adam = {
            "lr": self.stage.lr,
            "betas": [0.9, 0.98],
            "weight_decay": self.stage.weight_decay,
            "torch_adam": True,
        }
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": self.micro_batches,
            "gradient_clipping": self.stage.clip,
            "optimizer": {"type": "AdamW", "params": adam},
            "zero_optimization": {"stage": self.recipe.zero_stage},
            "bf16": {"enabled": self.recipe.precision == "bf16"},
            "steps_per_print": 10**9,
            "wall_clock_breakdown": False,
        }


def parts(rows: Sequence[Row], count: int) -> list[Sequence[Row]]:
    """`rows` in `count` pieces of consecutive rows, none empty."""
    edges = [round(i * len(rows) / count) for i in range(count + 1)]
    return [rows[a:b] for a, b in itertools.pairwise(edges)]


def to_device(batch: Batch, device: torch.device) -> Batch:
    if torch.device(device).type == "cpu":
        return batch
    moved = {name: value.to(device) for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return Batch(**vars(batch) | moved)
