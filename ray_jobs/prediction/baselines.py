"""Logistic regression and gradient boosting over counts, with EHRSHOT's grids, chosen by AUROC on the tuning split; of equal
ones, as all of a single column are, by the log loss.

What is chosen is refitted, all its settings kept, on train and tuning together (EHRSHOT's own refit loses them). The
held-out split is never seen before the prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.sparse import csr_matrix

from ray_jobs.statistics import Ranking

MODELS = ("logistic regression", "LightGBM")
GRIDS = {
    "ehrshot": {
        "logistic regression": {"C": [*(10.0**e for e in range(-6, 1)), *(10.0**e for e in range(2, 7))]},
        "LightGBM": {"max_depth": [3, 6, -1], "learning_rate": [0.02, 0.1, 0.5], "num_leaves": [10, 25, 100]},
    },
    "small": {
        "logistic regression": {"C": [1e-3, 1e-2, 1e-1, 1.0]},
        "LightGBM": {"max_depth": [3], "learning_rate": [0.02, 0.1], "num_leaves": [10]},
    },
}


@dataclass(frozen=True)
class Fit:
    """Probabilities of the held-out rows, the settings that were chosen, and their AUROC on the tuning split."""

    probabilities: np.ndarray
    chosen: Mapping[str, object]
    tuning_auroc: float


def fit(
    model: str,
    grid: str,
    features: csr_matrix | np.ndarray,
    labels: np.ndarray,
    splits: np.ndarray,
    threads: int = 1,
    refit: bool = True,
) -> Fit:
    """features: [n, columns]; labels: bool [n]; splits: train, tuning or held_out, [n]; refit: on train and tuning
    together once the settings are chosen, else the model of the train split stands.

    Where the tuning split has one class, its first settings stand (nothing can be chosen by AUROC; tuning_auroc is nan).
    Raises ValueError if the train split has one class, or there is no column.
    """
    train, tuning, held_out = (splits == name for name in ("train", "tuning", "held_out"))
    if len(np.unique(labels[train])) < 2:
        raise ValueError("the train split has one class")
    if not features.shape[1]:
        raise ValueError("nothing is seen in enough rows of the train split")
    best, best_auroc, best_loss, chosen = None, -1.0, np.inf, {}
    for settings in distinct(GRIDS[grid][model]):
        tried = _estimator(model, settings, threads).fit(features[train], labels[train])
        auroc = loss = np.nan
        if tuning.any():
            said = tried.predict_proba(features[tuning])[:, 1]
            auroc, loss = _auroc(labels[tuning], said), _log_loss(labels[tuning], said)
        if best is None or auroc > best_auroc or (auroc == best_auroc and loss < best_loss):
            best, best_auroc, best_loss, chosen = tried, auroc, loss, settings
    if refit:
        from sklearn.base import clone

        both = train | tuning
        best = clone(best).fit(features[both], labels[both])
    probabilities = best.predict_proba(features[held_out])[:, 1] if held_out.any() else np.zeros(0)
    return Fit(probabilities, chosen, best_auroc)


def distinct(choices: Mapping[str, list]) -> Iterator[dict[str, object]]:
    """The settings of a grid, without those that give the trees of an earlier one: of depth d they have at most 2^d leaves."""
    seen = set()
    for values in product(*choices.values()):
        settings = dict(zip(choices, values, strict=True))
        deep = settings.get("max_depth", -1)
        same = {**settings, "num_leaves": min(settings["num_leaves"], 2**deep)} if deep > 0 else settings
        if (key := tuple(same.values())) not in seen:
            seen.add(key)
            yield settings


def _estimator(model: str, settings: Mapping[str, object], threads: int):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    if model == "logistic regression":
        from sklearn.linear_model import LogisticRegression

        return make_pipeline(MaxAbsScaler(), LogisticRegression(max_iter=1000, random_state=0, **settings))
    from lightgbm import LGBMClassifier

    fixed = {
        "min_child_samples": 1,
        "n_jobs": threads,
        "random_state": 0,
        "deterministic": True,
        "verbose": -1,
    }
    return LGBMClassifier(force_row_wise=True, **fixed, **settings)


def _auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    once = np.ones((1, len(labels)), np.int64)
    return float(Ranking(labels, scores, np.arange(len(labels))).figures(once, ["auroc"])["auroc"][0])


def _log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    of_the_truth = np.where(labels, probabilities, 1 - probabilities)
    return float(-np.log(np.maximum(of_the_truth, np.finfo(np.float64).tiny)).mean())
