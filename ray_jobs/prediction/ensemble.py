"""Models on summaries of stays: LightGBM alone, logistic regression on bins, and the two blended with a second kind of trees.

The settings are fixed, not chosen: few rows and many columns want small steps, few columns a tree and large leaves. Trees
leave nan as it is. The regression sees each column as steps between its train quantiles, with one step for what was not
measured, so that both ends of a range can be dangerous (as in SAPS and APACHE). The shares of the blend are chosen in each fold
on its tuning rows, told by members that have seen neither these rows nor the held-out ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import expit

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
PARTS = 10  # shares are tenths
MODELS = {
    "logistic regression on bins": ("bins",), "LightGBM": ("trees",), "blend": ("trees", "random trees", "bins"),
}  # fmt: skip


@dataclass
class Folds:
    """The models over one table, fold by fold; a member of two models is fitted once.

    table: float32 [rows, columns] with nan, and the names of its columns; truth: bool [rows].
    """

    table: np.ndarray
    columns: Sequence[str]
    truth: np.ndarray
    seeds: int = 5
    threads: int = 1
    shares: dict[str, dict[int, Mapping[str, float]]] = field(default_factory=dict)  # by model and fold
    fitted: dict[tuple[str, int, bool], np.ndarray] = field(default_factory=dict)

    def foreseen(self, model: str, fold: int, split: np.ndarray) -> np.ndarray:
        """Probabilities of the held-out rows of a fold, float64, by the members' log-odds in the shares that tell its tuning
        rows best. model: one of MODELS; split: the role of every row. Raises ValueError if a class is missing."""
        members, tuning = MODELS[model], split == "tuning"
        of = {m: self._odds(m, fold, split, whole=False) for m in members} if len(members) > 1 else {}
        shares = best_shares(of, self.truth[tuning]) if of else {members[0]: 1.0}
        self.shares.setdefault(model, {})[fold] = shares
        return expit(sum(share * self._odds(m, fold, split, whole=True) for m, share in shares.items()))

    def _odds(self, member: str, fold: int, split: np.ndarray, whole: bool) -> np.ndarray:
        """Of the held-out rows by the whole of train and tuning; or of the tuning rows by train alone, with one seed, for which
        the choice of three shares is no finer."""
        if (member, fold, whole) not in self.fitted:
            seen = split != "held_out" if whole else split == "train"
            seeds = self.seeds if whole else 1
            told = odds(member, self.table, self.columns, self.truth, seen, seeds, self.threads)
            self.fitted[member, fold, whole] = told[split[~seen] == ("held_out" if whole else "tuning")]
        return self.fitted[member, fold, whole]


def best_shares(odds_of: Mapping[str, np.ndarray], truth: np.ndarray) -> dict[str, float]:
    """Shares of the members, tenths that add up to 1: the most even ones whose log loss is within one standard error, paired, of
    the lowest (Breiman's rule: a few hundred rows cannot tell members of like skill apart).

    odds_of: a member's log-odds, [n]; truth: bool [n].
    """
    told = np.stack([*odds_of.values()])
    tenths = [t for t in product(range(PARTS + 1), repeat=len(told)) if sum(t) == PARTS]
    even = np.array(sorted(tenths, key=lambda t: sum(part * part for part in t)))  # the most even ones first
    at = even / PARTS @ told
    lost = np.logaddexp(0, at) - truth * at  # [shares, n]
    more = lost - lost[lost.mean(1).argmin()]
    near = more.mean(1) <= more.std(1) / np.sqrt(len(truth))
    return {m: float(part) / PARTS for m, part in zip(odds_of, even[near.argmax()], strict=True)}


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
