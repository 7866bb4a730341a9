"""Models on summaries of stays: LightGBM alone, logistic regression on bins, and the two blended with a second kind of trees.

The settings are fixed, not chosen: few rows and many columns want small steps, few columns a tree and large leaves. Trees
leave nan as it is. The regression sees each column as steps between its train quantiles, with one step for what was not
measured, so that both ends of a range can be dangerous (as in SAPS and APACHE).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csr_matrix

TREES = {
    "objective": "binary", "learning_rate": 0.03, "num_leaves": 15, "min_data_in_leaf": 20, "feature_fraction": 0.15,
    "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5.0, "deterministic": True, "force_row_wise": True, "verbose": -1,
}  # fmt: skip
RANDOM_TREES = {**TREES, "extra_trees": True, "learning_rate": 0.04}
ROUNDS = {"trees": 300, "random trees": 400}
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
FEWEST = 100  # train rows in which a column must be measured to be binned
BINNED = re.compile(r"(/(n|min|max|mean|last|slope_per_h)@(24|48) h|^[^/]+)$")  # columns that are binned
C = 0.03
BLEND = {"trees": 0.35, "random trees": 0.35, "bins": 0.3}
MODELS = {"logistic regression on bins": {"bins": 1.0}, "LightGBM": {"trees": 1.0}, "blend": BLEND}


def mixed(model: str, odds_of: Callable[[str], np.ndarray]) -> np.ndarray:
    """Probabilities by the mean log-odds of the model's members. model: one of MODELS; odds_of: a member's log-odds."""
    return 1 / (1 + np.exp(-sum(share * odds_of(member) for member, share in MODELS[model].items())))


def odds(
    member: str,
    table: np.ndarray,
    columns: Sequence[str],
    truth: np.ndarray,
    seen: np.ndarray,
    seeds: int = 5,
    threads: int = 1,
) -> np.ndarray:
    """Log-odds of the rows that were not seen, float64, the mean over the seeds.

    table: float32 [rows, columns] with nan, and the names of its columns; truth, seen: bool [rows]; truth of others is
    not read. Raises ValueError if the rows that were seen are of one class.
    """
    if len(np.unique(truth[seen])) < 2:
        raise ValueError("the rows to learn from have one class")
    if member == "bins":
        coarse = [i for i, column in enumerate(columns) if BINNED.search(column)]
        return on_bins(table[:, coarse], truth, seen)
    return on_trees(member, table, truth, seen, seeds, threads)


def on_bins(table: np.ndarray, truth: np.ndarray, seen: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    steps = binned(table, seen)
    return LogisticRegression(C=C, max_iter=500).fit(steps[seen], truth[seen]).decision_function(steps[~seen])


def on_trees(
    name: str, table: np.ndarray, truth: np.ndarray, seen: np.ndarray, seeds: int, threads: int
) -> np.ndarray:
    import lightgbm

    settings = (TREES if name == "trees" else RANDOM_TREES) | {"num_threads": threads}
    found = np.zeros((~seen).sum())
    for seed in range(seeds):
        rows = lightgbm.Dataset(table[seen], truth[seen])
        fitted = lightgbm.train({**settings, "seed": seed}, rows, ROUNDS[name])
        found += fitted.predict(table[~seen], raw_score=True) / seeds
    return found


def binned(table: np.ndarray, seen: np.ndarray, quantiles: Sequence[float] = QUANTILES) -> csr_matrix:
    """One column a step, 1 where a value lies in it; breaks are quantiles of the rows that were seen, [rows, steps]."""
    places, first = [], 0
    for column in table.T.astype(np.float64):
        known = column[seen][~np.isnan(column[seen])]
        if len(known) >= FEWEST:
            breaks = np.unique(np.quantile(known, quantiles))
            step = np.where(np.isnan(column), 0, 1 + np.searchsorted(breaks, column))
            places.append(step + first)
            first += len(breaks) + 2
    rows = np.tile(np.arange(len(table)), len(places))
    where = np.concatenate(places) if places else np.zeros(0, int)
    return csr_matrix((np.ones(len(rows)), (rows, where)), (len(table), max(first, 1)))
