"""Does a recipe fit? An estimate before anything starts, so that a night does not end in the kernel's out-of-memory killer.

Counted for each worker: parameters, gradients and AdamW's states as ZeRO shares them out, activations of one micro-batch,
logits of its trained tokens; and apart from these what is offloaded to the host. About a third too high is better than a
little too low.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PretrainedConfig

from ray_jobs.config import JobError
from ray_jobs.llemr import adapters
from ray_jobs.llemr.recipe import Recipe

GIB = 1024**3
PROCESS_GB = 0.8  # Python, torch, Ray and the data
LAYERS_AT_ONCE = 4  # of offloaded weights: those that are read, and those fetched ahead
ROW_TOKENS = 160  # template and eight questions with their answers, beside the events
COPIES_A_LAYER = (
    34  # values of the hidden width that a layer keeps for the backward pass (Korthikanti et al., 2022)
)


@dataclass(frozen=True)
class Estimate:
    """GiB of one worker; `host` is what it offloads from its GPU."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    host: float = 0.0

    @property
    def total(self) -> float:
        return PROCESS_GB + self.parameters + self.gradients + self.optimizer + self.activations


def estimate(
    recipe: Recipe, stage: str, config: PretrainedConfig, parameters: int, projector: int
) -> Estimate:
    """parameters: of the language model; projector: of the projector, the only part that stage 1 trains."""
    settings = recipe.stage(stage)
    frozen = stage == "stage1" or settings.train == "projector"
    zero = recipe.zero(frozen)
    workers = recipe.min_workers or recipe.workers  # with fewer workers each holds more
    size = 4 if recipe.precision == "fp32" else 2
    trained = projector
    if not frozen:
        lora = settings.train == "lora"
        trained += adapters.parameters(config, settings.lora_rank) if lora else parameters
    share = [1, 1 / workers]
    master = 4 if size == 2 else 0
    sums = 4 if zero else size  # bytes of a summed gradient
    record = recipe.event_budget + ROW_TOKENS
    tokens = min(settings.micro_batch_rows, -(-settings.rows // workers)) * record
    kept = 2 if settings.gradient_checkpointing else COPIES_A_LAYER
    values = config.num_hidden_layers * config.hidden_size * kept + config.vocab_size
    if settings.gradient_checkpointing:
        values += config.hidden_size * COPIES_A_LAYER  # one layer at a time is computed again
    elif recipe.attention == "sdpa":
        values += config.num_hidden_layers * config.num_attention_heads * max(record, recipe.row_length)
    weights = (parameters + projector) * size * share[zero >= 3] / GIB
    offload = recipe.offload if recipe.gpus_per_worker and zero else "none"
    states_go, weights_go = offload != "none", offload == "all" and zero == 3
    summed = trained * sums * share[zero >= 2] / GIB
    fresh = trained * size * share[zero >= 2] / GIB  # of one backward pass; ZeRO 1 keeps them whole
    beside = fresh if zero == 1 and size != sums else 0.0
    states = trained * (8 + master) * share[zero >= 1] / GIB
    return Estimate(
        parameters=LAYERS_AT_ONCE / config.num_hidden_layers * weights * workers if weights_go else weights,
        gradients=fresh if states_go else summed + beside,
        optimizer=0.0 if states_go else states,
        activations=tokens * values * size / GIB,
        host=PROCESS_GB + states + summed + weights * weights_go if states_go else 0.0,
    )


def must_fit(
    recipe: Recipe,
    stage: str,
    config: PretrainedConfig,
    parameters: int,
    projector: int,
    free: float = float("inf"),
    host: float = float("inf"),
) -> Estimate:
    """Raises JobError that says how much is needed, how much there is, and what to change.

    free, host: GiB that the worker's GPU has free and its share of its host's memory, where they are known.
    """
    needed = estimate(recipe, stage, config, parameters, projector)
    given = min(recipe.memory_per_worker_gb, free)
    if not recipe.gpus_per_worker:
        given = min(given, available_gb() / recipe.workers)
    if needed.total > given:
        raise JobError(
            f"recipe {recipe.name}: {stage} needs about {needed.total:.1f} GB a worker (activations "
            f"{needed.activations:.1f}, optimizer {needed.optimizer:.1f}), there are {given:.1f}; lower "
            f"{stage}.micro_batch_rows, set {stage}.gradient_checkpointing, or raise zero_stage and workers"
        )
    if needed.host > host:
        raise JobError(
            f"recipe {recipe.name}: {stage} offloads about {needed.host:.1f} GB a worker to its host, there are {host:.1f}; "
            "set offload to optimizer or none, or put fewer workers on a machine"
        )
    return needed


def gpu_free_gb() -> float:
    """Memory that this process's GPU could give now; endless without one."""
    return torch.cuda.mem_get_info()[0] / GIB if torch.cuda.is_available() else float("inf")


def available_gb() -> float:
    """Memory that this machine could give now; unknown counts as endless."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next(int(line.split()[1]) * 1024 / GIB for line in lines if line.startswith("MemAvailable"))
