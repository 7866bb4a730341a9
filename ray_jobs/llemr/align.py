"""Alignment: teach the projector the base model's dialect, before any question is asked.

Every event of the train split has a vector in the dialect (`dialect.py`). The projector's linear map is fitted to these
vectors by ridge regression in closed form; then its hidden layer learns what is left, mostly the words of rare texts, in
a few hundred steps. The language model is not run at all, so this takes seconds.
"""

from __future__ import annotations

import numpy as np
import torch

from ray_jobs.llemr.model import Projector
from ray_jobs.llemr.reading import DialectEvents
from ray_jobs.llemr.tokens import EventFeatures

SAMPLE, BATCH, RIDGE, LR = 20_000, 512, 1e-3, 2e-3


def align(
    projector: Projector,
    features: EventFeatures,
    events: DialectEvents,
    embedding: torch.Tensor,
    indices: np.ndarray,
    steps: int,
    seed: int,
) -> float:
    """Fit the projector to the dialect on the events `indices`; returns the share of variance left unexplained.

    The same seed gives the same projector on every worker.
    """
    rng = np.random.default_rng([seed, 3])
    sample = _varied(features, indices, rng)
    embedding = embedding.detach()
    with torch.no_grad():
        seen, said = features[sample], events.vectors(embedding, sample)
        fit_linear(projector.linear, seen, said)
    hidden = [*projector.up.parameters(), *projector.down.parameters()]
    adam = torch.optim.AdamW(hidden, lr=LR, weight_decay=0.0)
    for step in range(steps):
        adam.param_groups[0]["lr"] = LR * min(1.0, (1 - step / steps) * 2)
        rows = torch.from_numpy(rng.integers(len(sample), size=BATCH))
        loss = (projector(seen[rows]) - said[rows]).square().mean() / said.var()
        loss.backward()
        adam.step()
        adam.zero_grad()
    with torch.no_grad():
        return float((projector(seen) - said).square().mean() / said.var())


def fit_linear(linear: torch.nn.Linear, seen: torch.Tensor, said: torch.Tensor) -> None:
    """Ridge regression of `said` [n, width] on `seen` [n, features], in float64, into the weights of `linear`."""
    x = torch.cat([seen, torch.ones(len(seen), 1)], dim=1).double()
    gram = x.T @ x + RIDGE * len(x) / x.shape[1] * torch.eye(x.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, x.T @ said.double()).float()
    with torch.no_grad():
        linear.weight.copy_(solution[:-1].T)
        linear.bias.copy_(solution[-1])


def _varied(features: EventFeatures, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At most SAMPLE events, drawn so that rare texts are not lost among the thousands of heart rates."""
    if len(indices) <= SAMPLE:
        return indices
    text = features.text[torch.from_numpy(indices)].numpy()
    weight = 1 / np.sqrt(np.bincount(text)[text])
    return rng.choice(indices, SAMPLE, replace=False, p=weight / weight.sum())
