"""Does a recipe fit? An estimate before anything starts, so that a night does not end in the kernel's out-of-memory killer.

Counted for each worker: parameters, gradients and AdamW's states as ZeRO shares them out, activations of one micro-batch,
logits of its trained tokens. About a third too high is better than a little too low.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PretrainedConfig

from ray_jobs.config import JobError
from ray_jobs.llemr import adapters
from ray_jobs.llemr.recipe import Recipe

GIB = 1024**3
PROCESS_GB = 0.8  # Python, torch, Ray and the data
ROW_TOKENS = 160  # template and eight questions with their answers, beside the events
COPIES_A_LAYER = (
    34  # values of the hidden width that a layer keeps for the backward pass (Korthikanti et al., 2022)
)


@dataclass(frozen=True)
class Estimate:
    """GiB of one worker."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        return PROCESS_GB + self.parameters + self.gradients + self.optimizer + self.activations


def estimate(
    recipe: Recipe, stage: str, config: PretrainedConfig, parameters: int, projector: int
) -> Estimate:
    """parameters: of the language model; projector: of the projector, the only part that stage 1 trains."""
    settings, zero = recipe.stage(stage), recipe.zero_stage
    workers = recipe.min_workers or recipe.workers  # with fewer workers each holds more
    size = 4 if recipe.precision == "fp32" else 2
    trained = projector
    if stage != "stage1" and settings.train != "projector":
        lora = settings.train == "lora"
        trained += adapters.parameters(config, settings.lora_rank) if lora else parameters
    share = [1, 1 / workers]
    master = 4 if size == 2 else 0
    record = recipe.event_budget + ROW_TOKENS
    tokens = min(settings.micro_batch_rows, -(-settings.rows // workers)) * record
    kept = 2 if settings.gradient_checkpointing else COPIES_A_LAYER
    values = config.num_hidden_layers * config.hidden_size * kept + config.vocab_size
    if settings.gradient_checkpointing:
        values += config.hidden_size * COPIES_A_LAYER  # one layer at a time is computed again
    elif recipe.attention == "sdpa":
        values += config.num_hidden_layers * config.num_attention_heads * max(record, recipe.row_length)
    return Estimate(
        parameters=(parameters + projector) * size * share[zero >= 3] / GIB,
        gradients=trained * size * share[zero >= 2] / GIB,
        optimizer=trained * (8 + master) * share[zero >= 1] / GIB,
        activations=tokens * values * size / GIB,
    )


def must_fit(
    recipe: Recipe, stage: str, config: PretrainedConfig, parameters: int, projector: int
) -> Estimate:
    """Raises JobError that says how much is needed, how much there is, and what to change."""
    needed = estimate(recipe, stage, config, parameters, projector)
    given = recipe.memory_per_worker_gb
    if not recipe.gpus_per_worker:
        given = min(given, available_gb() / recipe.workers)
    if needed.total > given:
        raise JobError(
            f"recipe {recipe.name}: {stage} needs about {needed.total:.1f} GB a worker (activations "
            f"{needed.activations:.1f}, optimizer {needed.optimizer:.1f}), there are {given:.1f}; lower "
            f"{stage}.micro_batch_rows, set {stage}.gradient_checkpointing, or raise zero_stage and workers"
        )
    return needed


def available_gb() -> float:
    """Memory that this machine could give now; unknown counts as endless."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next(int(line.split()[1]) * 1024 / GIB for line in lines if line.startswith("MemAvailable"))
