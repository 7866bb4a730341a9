"""Intervals by the patient bootstrap: questions of one patient are not independent, so patients are drawn, not questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DRAWS = 1000
LEVEL = 95.0


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
        self.times_drawn = rng.multinomial(size, np.full(size, 1 / size), size=draws)  # [draws, patients]

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


def bounds(draws: np.ndarray) -> tuple[float, float]:
    """Percentile bounds; draws in which nothing was asked (nan) do not count."""
    tail = (100 - LEVEL) / 2
    low, high = np.nanpercentile(draws, [tail, 100 - tail])
    return float(low), float(high)
