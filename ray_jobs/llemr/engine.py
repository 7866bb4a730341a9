"""DeepSpeed around a model: the same few calls on a laptop's CPU and on GPUs, for any ZeRO stage.

The batch is global: every worker takes its share of a step's rows, losses are divided by the trained tokens of the whole
step, and gradients are averaged over workers, so that one worker and many follow the same curve.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from ray_jobs.llemr import speed
from ray_jobs.llemr.corpus import Corpus, rows_of
from ray_jobs.llemr.model import Llemr
from ray_jobs.llemr.packing import FLEX_BLOCK, pack
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
        self,
        model: Llemr,
        corpus: Corpus,
        plan: Plan,
        stage: StageRecipe,
        recipe: Recipe,
        steps: int,
        saved_by: int | None = None,
    ):
        """`saved_by`: how many workers wrote the checkpoint that will be loaded, if one will be."""
        self.corpus, self.plan, self.stage, self.recipe, self.steps = corpus, plan, stage, recipe, steps
        self.workers, self.rank = dist.get_world_size(), dist.get_rank()
        self.zero = recipe.zero(frozen=not any(p.requires_grad for p in model.lm.parameters()))
        self.resized = bool(self.zero) and saved_by not in (None, self.workers)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.operations = speed.operations(sum(p.numel() for p in model.parameters()), trained)
        self.micro_batches = stage.micro_batches(self.workers)
        self.multiple = FLEX_BLOCK if recipe.attention == "flex_attention" else 1
        ds = deepspeed()
        ds.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)
        if stage.gradient_checkpointing:
            model.lm.gradient_checkpointing_enable({"use_reentrant": False})
        self.engine, *_ = ds.initialize(
            model=model, model_parameters=groups(stage, model), config=self._config()
        )
        self.engine.train()
        corpus.features.to(self.engine.device)

    def step(self, step: int) -> tuple[float, int, int]:
        """Take one step; returns (mean loss of a trained token over all workers, questions, real tokens)."""
        rows, recipe = self.plan.step(step), self.recipe
        targets = self.plan.targets(rows)
        mine = rows[self.rank :: self.workers]
        for group in self.engine.optimizer.param_groups:
            group["lr"] = group["peak"] * rate(self.stage, step, self.steps)
        total, tokens = torch.zeros(()), 0
        for part in parts(mine, self.micro_batches):
            packed = pack(self.corpus.before, rows_of(self.corpus, part), recipe.row_length, self.multiple)
            batch = packed.to(self.engine.device)
            features = self.corpus.features[batch.events]
            _, loss = self.engine(batch, features)
            # engine.backward divides by the number of micro-batches, and gradients are averaged over workers
            self.engine.backward(loss * (self.workers * self.micro_batches / targets))
            self.engine.step()
            total += loss.detach().float().cpu()
            tokens += batch.tokens
        counts = torch.tensor([float(total), float(tokens)], device=self.engine.device)
        dist.all_reduce(counts)
        return counts[0].item() / targets, sum(len(row.questions) for row in rows), int(counts[1].item())

    def agreed(self, said: bool) -> bool:
        """What the first worker says, to all of them."""
        told = torch.tensor([said], dtype=torch.uint8, device=self.engine.device)
        dist.broadcast(told, 0)
        return bool(told.item())

    def save(self, folder: Path) -> None:
        """Every rank writes its part; `load` goes on from it."""
        self.engine.save_checkpoint(str(folder), tag="state", save_latest=False)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote, by as many workers (bit for bit) or by another number of them."""
        with universal(folder) if self.resized else contextlib.nullcontext(folder) as found:
            self.engine.load_checkpoint(str(found), tag="state")
            dist.barrier()

    def state(self) -> dict[str, torch.Tensor]:
        """The trained parameters, gathered from all ranks, on the CPU; tied ones once."""
        ds = deepspeed()
        module, found = self.engine.module, {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            with ds.zero.GatheredParameters([parameter], enabled=self.zero == 3):
                found[name] = parameter.detach().cpu().clone()
        return found

    def close(self) -> None:
        """Give up the engine and all that it holds; the trainer cannot be used any more."""
        parameters = list(self.engine.module.parameters())
        self.engine.destroy()
        vars(self.engine.optimizer).clear()
        del self.engine
        for parameter in parameters:  # ZeRO 3's hooks outlive the engine and hold them (DeepSpeed 0.19.8)
            for tensor in (parameter, getattr(parameter, "ds_tensor", parameter)):
                tensor.data, tensor.grad = tensor.data.new_empty(0), None

    def _config(self) -> dict:
        adam = {
            "lr": self.stage.lr,
            "betas": [0.9, 0.98],
            "weight_decay": self.stage.weight_decay,
            "torch_adam": True,
        }
        bf16 = self.recipe.precision == "bf16"
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": self.micro_batches,
            "gradient_clipping": self.stage.clip,
            "optimizer": {"type": "AdamW", "params": adam},
            "zero_optimization": {"stage": self.zero, **self._offload()},
            "checkpoint": {"load_universal": self.resized},
            "bf16": {"enabled": bf16},
            # by default DeepSpeed would add up bf16 gradients in bf16; it has no fp32 sum for ZeRO 0
            "data_types": {"grad_accum_dtype": "fp32"} if bf16 and self.zero else {},
            "steps_per_print": 10**9,
            "wall_clock_breakdown": False,
        }

    def _offload(self) -> dict:
        to_host = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        parts = {
            "none": [],
            "optimizer": ["offload_optimizer"],
            "all": ["offload_optimizer", "offload_param"],
        }
        wanted = parts[self.recipe.offload] if self.zero else []
        return {part: to_host for part in wanted if part == "offload_optimizer" or self.zero == 3}


@contextlib.contextmanager
def universal(folder: Path) -> Iterator[Path]:
    """The checkpoint as DeepSpeed's universal one, which any number of workers can load; made once on each machine."""
    target = folder / f"universal-{platform.node()}"
    first = int(os.environ.get("LOCAL_RANK", 0)) == 0
    if first:
        command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
        places = ["--input_folder", str(folder / "state"), "--output_folder", str(target / "state")]
        one_by_one = ["--num_extract_workers", "1", "--num_merge_workers", "1"]
        subprocess.run([*command, *places, *one_by_one], check=True, capture_output=True)
    dist.barrier()
    try:
        yield target
    finally:
        if first:
            shutil.rmtree(target, ignore_errors=True)


def rate(stage: StageRecipe, step: int, steps: int) -> float:
    """Share of the peak rate: linear warm-up, then cosine to a twentieth."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, steps - stage.warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def groups(stage: StageRecipe, model: nn.Module) -> list[dict]:
    """The trained parameters as an optimizer takes them: projector and language model, each with its peak rate."""
    rates = {"projector": stage.lr_projector or stage.lr, "lm": stage.lr}
    found = [
        {"params": [p for p in getattr(model, part).parameters() if p.requires_grad], "lr": lr, "peak": lr}
        for part, lr in rates.items()
    ]
    return [group for group in found if group["params"]]


def parts(rows: Sequence[Row], count: int) -> list[Sequence[Row]]:
    """`rows` in `count` pieces of consecutive rows, none empty."""
    edges = [round(i * len(rows) / count) for i in range(count + 1)]
    return [rows[a:b] for a, b in itertools.pairwise(edges)]
