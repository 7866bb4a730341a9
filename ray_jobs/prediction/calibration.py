"""From log-odds to probabilities: the calibration that foretells the tuning split best, chosen by patients it has not seen.

Neither changes the order of predictions, so AUROC is the same before and after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

FOLDS = 5
FEWEST = 5  # patients of either class in the tuning split; with fewer only the prior is fitted
FREE = {"none": (False, False), "temperature": (True, False), "prior": (False, True), "platt": (True, True)}


@dataclass(frozen=True)
class Calibration:
    """probability = 1 / (1 + exp(-(slope * odds + intercept))).

    kind: none; temperature (slope); prior (intercept); platt (both).
    """

    kind: str
    slope: float = 1.0
    intercept: float = 0.0

    def probabilities(self, odds: np.ndarray) -> np.ndarray:
        """float64 [n] in 0 to 1."""
        return expit(self.slope * odds + self.intercept)


def choose(odds: np.ndarray, truth: np.ndarray, patients: Sequence[str]) -> Calibration:
    """Of FREE the kind with the lowest log loss on patients that its fit has not seen (five folds by a hash), fitted on all.

    odds: [n]; truth: bool [n]; patients: [n]. With too few patients of a class it is the prior, of nobody none.
    """
    patients = np.asarray(patients)
    if not len(patients):
        return Calibration("none")
    if min(len(set(patients[truth])), len(set(patients[~truth]))) < FEWEST:
        return fit("prior", odds, truth)
    fold = np.array([int(hashlib.sha256(p.encode()).hexdigest()[:8], 16) % FOLDS for p in patients])

    def unseen(kind: str) -> float:
        lost = 0.0
        for held in (fold == f for f in range(FOLDS)):
            lost += _loss(fit(kind, odds[~held], truth[~held]), odds[held], truth[held].astype(float))
        return lost

    return fit(min(FREE, key=unseen), odds, truth)


def fit(kind: str, odds: np.ndarray, truth: np.ndarray) -> Calibration:
    """Maximum likelihood with Platt's targets (Platt 1999), which keep a separable set from certainty; the slope is positive."""
    scales, shifts = FREE[kind]
    positives, negatives = truth.sum(), (~truth).sum()
    targets = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    bounds = [(1e-3, 1e3) if scales else (1.0, 1.0), (None, None) if shifts else (0.0, 0.0)]
    best = minimize(
        lambda at: _loss(Calibration(kind, *at), odds, targets), (1.0, 0.0), method="L-BFGS-B", bounds=bounds
    )
    return Calibration(kind, *(float(x) for x in best.x))


def _loss(made: Calibration, odds: np.ndarray, targets: np.ndarray) -> float:
    """Sum of cross-entropies, from the log-odds, so that certainty is not infinite by rounding."""
    at = made.slope * odds + made.intercept
    return float(np.sum(np.logaddexp(0, at) - targets * at))
