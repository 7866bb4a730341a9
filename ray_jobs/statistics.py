"""Figures and their intervals by the patient bootstrap: what is asked of one patient is not independent, so patients are
drawn, not questions or predictions. Figures that rank (AUROC, AUPRC, min(se, +P)) sort once for all draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import erfc

DRAWS = 1000
LEVEL = 95.0
BINS = 10
CELLS = 2_000_000  # weights that are held at once
FEWEST_PATIENTS = 5  # of either class; with fewer, no difference is tested
RANKED = ("auroc", "auprc", "min_se_ppv")
FIGURES = (*RANKED, "brier", "calibration_error")


@dataclass(frozen=True)
class Interval:
    """A figure with the bounds of its 95 % percentile interval, and over how many questions and patients it was taken."""

    value: float
    low: float
    high: float
    questions: int
    patients: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Rounded to 4 decimals, None where nothing was asked, so that it is JSON."""
        rounded = {
            k: None if np.isnan(v := getattr(self, k)) else round(float(v), 4)
            for k in ("value", "low", "high")
        }
        return {**rounded, "questions": self.questions, "patients": self.patients}


class PatientBootstrap:
    """The same draws of patients for every figure of a split, so that differences are paired.

    patients: one label a question, [n]; draws: how often all patients are drawn with replacement.
    """

    def __init__(self, patients: np.ndarray, draws: int = DRAWS, seed: int = 0):
        names, self.patient = np.unique(patients, return_inverse=True)
        self.n_patients = len(names)
        rng = np.random.default_rng(seed)
        size = max(self.n_patients, 1)
        drawn = rng.multinomial(size, np.full(size, 1 / size), size=draws)
        self.times_drawn = drawn[:, : self.n_patients]  # [draws, patients]

    def draws_of(self, values: np.ndarray, asked: np.ndarray | None = None) -> np.ndarray:
        """Mean of `values` [n] over the questions where `asked` is True, in each draw of patients: float64 [draws]."""
        asked = np.ones(len(values), bool) if asked is None else asked
        sums = np.bincount(self.patient[asked], values[asked].astype(np.float64), minlength=self.n_patients)
        counts = np.bincount(self.patient[asked], minlength=self.n_patients)
        with np.errstate(invalid="ignore"):
            return (self.times_drawn @ sums) / (self.times_drawn @ counts)

    def interval(self, values: np.ndarray, asked: np.ndarray | None = None) -> Interval:
        """Mean of `values` over the questions asked, with its interval; nan if there are none."""
        asked = np.ones(len(values), bool) if asked is None else asked
        if not asked.any():
            return Interval(np.nan, np.nan, np.nan, 0, 0)
        low, high = bounds(self.draws_of(values, asked))
        n_patients = len(np.unique(self.patient[asked]))
        return Interval(float(values[asked].mean()), low, high, int(asked.sum()), n_patients)

    def difference(self, ours: np.ndarray, theirs: np.ndarray, asked: np.ndarray | None = None) -> Interval:
        """Mean of ours minus theirs, question by question, with its paired interval."""
        return self.interval(ours.astype(np.float64) - theirs.astype(np.float64), asked)


def mean_difference(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Paired difference averaged over question sets with equal weight; a patient is drawn in all sets at once.

    parts: one (patients, ours, theirs) a set, each [n of the set].
    """
    patients = np.concatenate([p for p, _, _ in parts])
    values = np.concatenate(
        [ours.astype(np.float64) - theirs.astype(np.float64) for _, ours, theirs in parts]
    )
    which = np.repeat(np.arange(len(parts)), [len(p) for p, _, _ in parts])
    bootstrap = PatientBootstrap(patients, draws, seed)
    by_set = [bootstrap.draws_of(values, which == i) for i in range(len(parts))]
    low, high = bounds(np.mean(by_set, axis=0))
    value = float(np.mean([values[which == i].mean() for i in range(len(parts))]))
    return Interval(value, low, high, len(values), bootstrap.n_patients)


class Ranking:
    """Binary labels sorted once by their scores, so that a draw costs one pass and no sort.

    labels: bool [n]; scores: float [n], higher for the positive class; owners: index of each one's patient, [n].
    """

    def __init__(self, labels: np.ndarray, scores: np.ndarray, owners: np.ndarray):
        order = np.argsort(-scores, kind="stable")
        labels, falling = labels[order].astype(bool), -scores[order]
        self.positive, self.negative = owners[order][labels], owners[order][~labels]
        hits, misses = falling[labels], falling[~labels]
        self.above = np.searchsorted(
            misses, hits, side="left"
        )  # negatives that score higher than each positive
        self.not_below = np.searchsorted(misses, hits, side="right")
        self.tied_to = np.searchsorted(hits, hits, side="right") - 1  # the last positive of the same score

    def figures(self, times_drawn: np.ndarray, names: Sequence[str] = RANKED) -> dict[str, np.ndarray]:
        """Name of RANKED to float64 [draws], for `times_drawn` int [draws, patients]; nan where a class is missing.

        auroc and auprc are scikit-learn's roc_auc_score and average_precision_score; min_se_ppv is the highest
        min(sensitivity, positive predictive value) over thresholds (PhysioNet/CinC Challenge 2012, event 1).
        """
        if not len(self.positive) or not len(self.negative):
            return {name: np.full(len(times_drawn), np.nan) for name in names}
        step = max(1, CELLS // (len(self.positive) + len(self.negative)))
        drawn = np.ascontiguousarray(times_drawn.T.astype(np.int32))  # a patient's draws lie side by side
        parts = [self._part(drawn[:, i : i + step], names) for i in range(0, len(times_drawn), step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _part(self, drawn: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        weight = drawn[self.positive]
        false = np.zeros((len(self.negative) + 1, drawn.shape[1]), np.int32)
        np.cumsum(drawn[self.negative], axis=0, out=false[1:])
        hits, misses = weight.sum(0), false[-1]
        false_here, found = false[self.not_below], {}
        with np.errstate(invalid="ignore", divide="ignore"):
            if "auroc" in names:
                ranked_above = false_here + false[self.above]
                lost = np.einsum("ij,ij->j", weight, ranked_above, dtype=np.float64) / 2
                found["auroc"] = 1 - lost / (hits * misses.astype(np.float64))
            if set(names) - {"auroc"}:
                true_here = np.cumsum(weight, axis=0)[self.tied_to]
                precision = np.where(true_here > 0, true_here / (true_here + false_here), 0.0)
                found["auprc"] = (weight * precision).sum(0) / hits
                found["min_se_ppv"] = np.minimum(precision, true_here / hits).max(0)
        one_class = (hits == 0) | (misses == 0)
        return {name: np.where(one_class, np.nan, found[name]) for name in names}


def classify(
    bootstrap: PatientBootstrap, labels: np.ndarray, scores: np.ndarray
) -> tuple[dict[str, Interval], dict[str, np.ndarray]]:
    """FIGURES of probabilities [n] against labels [n], with intervals; and their draws, for paired comparisons.

    calibration_error is the mean distance of probability and frequency over BINS bins of equal width, weighed by their
    share. A split of one class has nan where a figure needs both, and one of no rows has nan everywhere.
    """
    labels, scores = np.asarray(labels, bool), np.asarray(scores, np.float64)
    whole = np.ones((1, bootstrap.n_patients), np.int64)
    draws, value = {}, {}
    ranking = Ranking(labels, scores, bootstrap.patient)
    draws |= ranking.figures(bootstrap.times_drawn)
    value |= {name: found[0] for name, found in ranking.figures(whole).items()}
    squares = (scores - labels) ** 2
    draws["brier"], value["brier"] = bootstrap.draws_of(squares), squares.mean() if len(squares) else np.nan
    distances = _by_bin(bootstrap, scores - labels, scores)
    for found, times in ((draws, bootstrap.times_drawn), (value, whole)):
        with np.errstate(invalid="ignore"):
            error = np.abs(times @ distances).sum(1) / (
                times @ np.bincount(bootstrap.patient, minlength=times.shape[1])
            )
        found["calibration_error"] = error if found is draws else error[0]
    sizes = len(labels), bootstrap.n_patients
    return {name: Interval(float(value[name]), *bounds(draws[name]), *sizes) for name in FIGURES}, draws


def _by_bin(bootstrap: PatientBootstrap, distances: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Sum of distances by patient and bin, [patients, BINS]."""
    bins = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    sums = np.bincount(bootstrap.patient * BINS + bins, distances, minlength=bootstrap.n_patients * BINS)
    return sums.reshape(bootstrap.n_patients, BINS)


def p_value(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Two-sided p of a difference from paired draws; nan if fewer than two draws have both classes.

    The mean of the differences in units of their deviation, as a normal variate (the bootstrap test of pROC, Robin et al.
    2011); from a handful of patients of a class it is rough. Counting draws beyond 0 cannot tell a p below 2 in 1,001, which no correction over hundreds of comparisons survives.
    """
    difference = (ours - theirs)[~np.isnan(ours - theirs)]
    if len(difference) < 2:
        return np.nan
    mean, deviation = abs(difference.mean()), difference.std()
    if deviation < 1e-12:  # the same difference in every draw: no more than counted draws can say
        return 1.0 if mean < 1e-12 else 2 / (len(difference) + 1)
    return float(erfc(mean / deviation / np.sqrt(2)))


def rarer_class(patients: np.ndarray, labels: np.ndarray) -> int:
    """Patients of the rarer class among rows, both [n]. Below FEWEST_PATIENTS a p says nothing: the draws hold hardly another patient of it."""
    return min(len(np.unique(patients[labels == which])) for which in (False, True))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction of the p-values of one family; nan stays nan and counts as no comparison."""
    known = sorted((p, name) for name, p in p_values.items() if not np.isnan(p))
    corrected, highest = {}, 0.0
    for i, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - i)))
        corrected[name] = highest
    return {name: corrected.get(name, np.nan) for name in p_values}


def shown(figure: Mapping[str, float | None]) -> str:
    """A figure of `Interval.as_dict` for a table, without its interval."""
    return "one class" if figure["value"] is None else f"{figure['value']:.3f}"


def bounded(figure: Mapping[str, float | None]) -> str:
    """The same with its interval."""
    if figure["value"] is None:
        return shown(figure)
    return f"{shown(figure)} ({figure['low']:.3f} to {figure['high']:.3f})"


def bounds(draws: np.ndarray) -> tuple[float, float]:
    """Percentile bounds; draws in which nothing was asked (nan) do not count."""
    tail = (100 - LEVEL) / 2
    if np.isnan(draws).all():
        return np.nan, np.nan
    low, high = np.nanpercentile(draws, [tail, 100 - tail])
    return float(low), float(high)
