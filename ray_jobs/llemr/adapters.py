"""LoRA: what stage 2 trains of a large language model, by peft; merged into the weights before they are published."""

from __future__ import annotations

from torch import nn
from transformers import PretrainedConfig

from ray_jobs.llemr.recipe import StageRecipe

NAME = "default"


def add(lm: nn.Module, stage: StageRecipe):
    """Freeze `lm` and put adapters beside all its linear maps but the head; returns peft's tuner, which can merge them."""
    from peft import LoraConfig, LoraModel

    lm.requires_grad_(False)
    config = LoraConfig(
        r=stage.lora_rank, lora_alpha=stage.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return LoraModel(lm, {NAME: config}, NAME)


def parameters(config: PretrainedConfig, rank: int) -> int:
    """How many parameters `add` trains, for a model of Llama's layout."""
    hidden, mlp, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    inner, grouped = heads * head, config.num_key_value_heads * head
    sides = 2 * (hidden + inner) + 2 * (hidden + grouped) + 3 * (hidden + mlp)
    return rank * sides * config.num_hidden_layers
