"""Reload: read a weights directory in a fresh process and compare its logits with those of the process that wrote it.

    python -m ray_jobs.llemr.reload <folder> <probe>

prints one JSON object: `difference` (largest absolute difference of the logits) and `answered`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.packing import Batch, pack
from ray_jobs.llemr.tokenizer import prompt_parts

EVENTS, ANSWER = 12, 4


def probe(weights: checkpoint.Weights) -> tuple[Batch, torch.Tensor]:
    """A made-up record and question, the same in every process: no patient's data is kept."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(EVENTS, weights.features.width, generator=generator)
    before, between, after = prompt_parts(weights.tokenizer)
    question = np.array([*between, *range(1, 6), *after], np.int32)
    answer = np.arange(1, 1 + ANSWER, dtype=np.int32)
    return pack(before, [(np.arange(EVENTS), [(question, answer)])]), features


@torch.inference_mode()
def logits(weights: checkpoint.Weights) -> torch.Tensor:
    batch, features = probe(weights)
    torch.set_num_threads(1)
    return weights.model().eval()(batch, features)[0]


def write_probe(weights: checkpoint.Weights, file: Path) -> None:
    """Keep the logits of the probe."""
    threads = torch.get_num_threads()
    safetensors.torch.save_file({"logits": logits(weights)}, file)
    torch.set_num_threads(threads)


@torch.inference_mode()
def compare(folder: Path, file: Path) -> dict[str, object]:
    checkpoint.verify(folder)
    weights = checkpoint.load_weights(folder)
    expected = safetensors.torch.load_file(file)["logits"]
    batch, features = probe(weights)
    model = weights.model().eval()
    before = model.lm.get_input_embeddings()(
        torch.tensor(prompt_parts(weights.tokenizer)[0], dtype=torch.long)
    )
    prefix = torch.cat([before, model.projector(features)])
    question = batch.ids[0, len(prefix) : -ANSWER].numpy()
    said = model.generate([prefix], [question], weights.tokenizer.eos_token_id, ANSWER)
    return {
        "difference": float((logits(weights) - expected).abs().max()),
        "answered": isinstance(said[0], list),
    }


if __name__ == "__main__":
    print(json.dumps(compare(Path(sys.argv[1]), Path(sys.argv[2]))))
