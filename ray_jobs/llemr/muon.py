"""Muon: momentum, made orthogonal, for the weight matrices of hidden layers (Jordan et al., 2024).

Written here because `torch.optim.Muon` computes in bfloat16, which is several times slower on CPUs without AVX512-BF16.
Matrices of one shape are stacked, so that a step is a few batched products.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic that drives all singular values to about 1
ITERATIONS = 3  # five are usual; three trained as well here and cost half


class Muon(torch.optim.Optimizer):
    """Every parameter must be a matrix; embeddings, heads and norms belong to another optimizer."""

    def __init__(self, matrices: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95):
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for matrix in group["params"]:
                by_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in by_shape.items():
                update = orthogonal(torch.stack([self._direction(m, group["momentum"]) for m in matrices]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for matrix, change in zip(matrices, update, strict=True):
                    matrix.add_(change, alpha=-group["lr"] * scale)

    def _direction(self, matrix: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        state = self.state[matrix]
        if not state:
            state["mean"] = torch.zeros_like(matrix)
        state["mean"].lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(state["mean"], momentum)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """About the nearest matrices with singular values 1, by Newton-Schulz iteration: [n, rows, columns]."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
