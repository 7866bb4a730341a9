"""Attention of packed rows on a CPU, forward and backward: torch's fused kernel against two batched products.

    python -m tests.benchmarks.attention

Rows as the recipe `small` reads them: 7 of 240 positions and 11 of 150, 5 heads of 32 dimensions. Both sides take the same
boolean mask, in turns; their outputs must agree. CPU seconds of one thread, medians.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from ray_jobs.llemr.attention import batched_products

SHAPES = (7, 240), (11, 150)
HEADS, WIDTH = 5, 32
CLOSE = {"bf16": 0.05, "fp32": 1e-4}
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


def products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return batched_products(None, query, key, value, mask, WIDTH**-0.5)[0]


def seconds(attention: Callable, inputs: list[torch.Tensor], mask: torch.Tensor) -> float:
    started = time.process_time()
    found = attention(*inputs, mask)
    found.backward(torch.ones_like(found))
    return time.process_time() - started


def measure(rounds: int) -> dict[str, float]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures: dict[str, float] = {"rounds": rounds}
    for name, dtype in TYPES.items():
        for rows, length in SHAPES:
            size = rows, HEADS, length, WIDTH
            inputs = [torch.randn(size, dtype=dtype, requires_grad=True) for _ in range(3)]
            mask = torch.ones(rows, 1, length, length, dtype=torch.bool).tril()
            worst = (fused(*inputs, mask) - products(*inputs, mask)).abs().max().item()
            if worst > CLOSE[name]:
                raise SystemExit(f"{name}: the two differ by {worst}")
            taken = [[seconds(side, inputs, mask) for side in (fused, products)] for _ in range(rounds)]
            usual, ours = np.median(taken, axis=0)
            figures[f"fused_ms_{name}_{length}"] = round(1000 * usual, 2)
            figures[f"products_ms_{name}_{length}"] = round(1000 * ours, 2)
            figures[f"ratio_vs_fused_{name}_{length}"] = round(usual / ours, 2)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    print(json.dumps(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
