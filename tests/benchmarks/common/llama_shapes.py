"""A model of Llama shape with random weights, random records of hospital length, and what a machine could do at most.

Needs torch and transformers alone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ray_jobs.llemr.model import Llemr, Projector
from ray_jobs.llemr.packing import Batch

BEFORE, FEATURES = list(range(3, 33)), 600  # a template's tokens; numbers of one event


@dataclass(frozen=True)
class Shape:
    """A model and the lengths it is trained on; the lengths of 7b are those of MIMIC-IV's admissions."""

    hidden: int
    layers: int
    heads: int
    mlp: int
    vocabulary: int
    events: tuple[int, int]  # fewest and most of a record, drawn evenly on a logarithmic scale
    row_length: int
    records: int  # a step
    product: int  # rows and columns of the matrices for the ceiling


SHAPES = {
    "7b": Shape(4096, 32, 32, 11008, 32000, (128, 1024), 4096, 16, 8192),
    "smallest": Shape(64, 2, 2, 128, 256, (8, 64), 256, 4, 256),
}
QUESTIONS, QUESTION, ANSWER = 7, 24, 8  # a record, and tokens of each


def build(shape: Shape, device: torch.device) -> Llemr:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.row_length,
        attn_implementation="flex_attention" if device.type == "cuda" else "sdpa",
    )
    with device:
        lm = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
        return Llemr(lm, Projector(FEATURES, shape.hidden).to(torch.bfloat16)).train()


def records(shape: Shape, count: int, seed: int) -> list:
    """Units of `packing.pack`, with random tokens; event indices point into a table of the most events."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.uniform(*np.log(shape.events), count)).astype(int)
    tokens = rng.integers(33, shape.vocabulary, (count, QUESTIONS, QUESTION + ANSWER))
    return [
        (np.arange(n), [(said[:QUESTION], said[QUESTION:]) for said in asked])
        for n, asked in zip(lengths, tokens, strict=True)
    ]


def ceiling(shape: Shape, device: torch.device) -> float:
    """Operations a second of a bf16 product, the best of a few."""
    a = torch.randn(shape.product, shape.product, device=device, dtype=torch.bfloat16)
    best = min(seconds_of(lambda: a @ a, device) for _ in range(10))
    return 2 * shape.product**3 / best


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def flops(model: Llemr, units: list, batch: Batch, each: int) -> float:
    """Operations of one step: `each` a parameter and real token, and twice that a pair of positions and a width's number."""
    config, said = model.lm.config, QUESTION + ANSWER
    prefixes = [len(BEFORE) + len(events) for events, _ in units]
    pairs = sum(n * n / 2 + QUESTIONS * said * (n + said / 2) for n in prefixes)
    head = model.lm.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.lm.parameters()) - 2 * head  # the input embedding multiplies nothing
    attention = 2 * pairs * config.hidden_size * config.num_hidden_layers
    return each * (body * batch.tokens + head * len(batch.target) + attention)
