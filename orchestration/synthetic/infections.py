"""Cultures and antibiotics: broad drugs before or after the sample, hours later the organism, then often another drug."""

from __future__ import annotations

import numpy as np
import polars as pl

from orchestration.synthetic.care import choose, medication
from orchestration.synthetic.clock import HOUR
from orchestration.synthetic.cohort import Cohort
from orchestration.synthetic.diseases import DISEASES
from orchestration.synthetic.frames import frame
from orchestration.synthetic.microbes import (
    ANTIBIOTIC_NAMES,
    ANTIBIOTICS,
    ORGANISMS,
    POSITIVE,
    SITE_TESTS,
    SITES,
)

NAMES = list(ORGANISMS)
WEIGHT = np.array([weights for weights, _ in ORGANISMS.values()], float).T  # [site, organism]
TESTED = np.array([[name in tested for name in ANTIBIOTIC_NAMES] for _, tested in ORGANISMS.values()])
CHANCE_S = np.array(
    [[tested.get(name, 0.0) for name in ANTIBIOTIC_NAMES] for _, tested in ORGANISMS.values()]
)


def infections(rng: np.random.Generator, cohort: Cohort) -> tuple[pl.DataFrame, pl.DataFrame, np.ndarray]:
    """Cultures (admission, at, stored, site, test, organism, antibiotic, interpretation), one row a tested antibiotic;
    antibiotics as medications; and the organism [admission] that was found first, '' if none."""
    cultures = _collect(rng, cohort)
    tests = _susceptibility(rng, cultures)
    drugs = pl.concat([_empiric(rng, cohort, cultures), _targeted(rng, cohort, cultures, tests)])
    found = np.full(cohort.size, "", dtype=object)
    positive = cultures.filter(pl.col("organism") >= 0).unique("admission", keep="first", maintain_order=True)
    found[positive["admission"].to_numpy()] = np.array(NAMES, object)[positive["organism"].to_numpy()]
    return _written(cultures, tests), drugs, found


def _collect(rng: np.random.Generator, cohort: Cohort) -> pl.DataFrame:
    """One row a culture: (culture, admission, at, stored, site index, organism index or -1)."""
    parts = []
    for i, site in enumerate(SITES):
        infected = cohort.has @ np.array([d.site == site for d in DISEASES])
        first = np.flatnonzero(infected & (rng.random(cohort.size) < 0.92))
        extra = np.flatnonzero(
            (cohort.has @ np.array([bool(d.site) for d in DISEASES]))
            & (rng.random(cohort.size) < (0.35 if site == "blood" else 0.12))
        )
        repeat = first[rng.random(len(first)) < 0.2]
        length = cohort.discharge - cohort.admit
        for who, low, high in ((first, 0.03, 0.16), (extra, 0.03, 0.2), (repeat, 0.35, 0.7)):
            at = cohort.admit[who] + 45 + (rng.uniform(low, high, len(who)) * length[who]).astype(np.int64)
            parts.append((who, at, np.full(len(who), i)))
    who, at, site = (np.concatenate([p[k] for p in parts]) for k in range(3))
    order = np.lexsort((site, at, who))
    who, at, site = who[order], at[order], site[order]
    positive = rng.random(len(who)) < np.array([POSITIVE[s] for s in SITES])[site]
    share = np.cumsum(WEIGHT[site] / WEIGHT[site].sum(axis=1, keepdims=True), axis=1)
    organism = (rng.random(len(who))[:, None] > share).sum(axis=1).clip(0, len(NAMES) - 1)
    same = (who[1:] == who[:-1]) & (rng.random(len(who) - 1) < 0.6) if len(who) else np.zeros(0, bool)
    # The same illness mostly shows the same organism, where it can grow there.
    for i in np.flatnonzero(same) + 1:
        organism[i] = organism[i - 1] if WEIGHT[site[i], organism[i - 1]] > 0 else organism[i]
    stored = at + (rng.uniform(4, 16, len(who)) * HOUR).astype(np.int64)
    number = np.arange(len(who))
    return frame(
        culture=number,
        admission=who,
        at=at,
        stored=stored,
        site=site,
        organism=np.where(positive, organism, -1),
    )


def _susceptibility(rng: np.random.Generator, cultures: pl.DataFrame) -> pl.DataFrame:
    """Two to five tested antibiotics of each positive culture: (culture, antibiotic index, interpretation)."""
    positive = cultures.filter(pl.col("organism") >= 0)
    organism = positive["organism"].to_numpy()
    order = np.where(TESTED[organism], rng.random((len(organism), len(ANTIBIOTICS))), 2.0).argsort(axis=1)
    rank = order.argsort(axis=1)
    tested = TESTED[organism] & (rank < rng.integers(2, 6, len(organism))[:, None])
    row, antibiotic = np.nonzero(tested)
    luck = rng.random(len(row))
    sensitive = CHANCE_S[organism[row], antibiotic]
    letter = np.where(luck < sensitive, "S", np.where(luck < sensitive + 0.1 * (1 - sensitive), "I", "R"))
    return frame(culture=positive["culture"].to_numpy()[row], antibiotic=antibiotic, interpretation=letter)


def _empiric(rng: np.random.Generator, cohort: Cohort, cultures: pl.DataFrame) -> pl.DataFrame:
    """Broad drugs around the first culture: in six of ten patients one hours before it, in most one after it."""
    first = cultures.unique("admission", keep="first", maintain_order=True)
    who, at = first["admission"].to_numpy(), first["at"].to_numpy()
    door = cohort.admit[who]
    before = rng.random(len(who)) < 0.6
    after = ~before | (rng.random(len(who)) < 0.55)
    early = np.maximum(at - rng.integers(40, 360, len(who)), door + rng.integers(10, 40, len(who)))
    late = at + rng.integers(10, 240, len(who))
    broad = ANTIBIOTICS[:8]
    which, _ = choose(rng, broad, len(who))
    other = (which + rng.integers(1, len(broad), len(who))) % len(broad)
    parts = []
    for given, begin, drug in ((before, early, which), (after, late, other)):
        end = begin + (rng.uniform(14, 60, len(who)) * HOUR).astype(np.int64)
        dose = np.array([d.doses[-1] for d in broad])[drug]
        rows = medication(broad, drug, dose, admission=who, at=begin, end=end, kind="order")
        parts.append(_within(cohort, rows.filter(given)))
    return pl.concat(parts)


def _targeted(
    rng: np.random.Generator, cohort: Cohort, cultures: pl.DataFrame, tests: pl.DataFrame
) -> pl.DataFrame:
    """After four of five positive results a drug to which the organism is sensitive, at times one that was not tested."""
    sensitive = np.zeros((len(cultures), len(ANTIBIOTICS)))
    letters = tests.filter(pl.col("interpretation") == "S")
    sensitive[letters["culture"].to_numpy(), letters["antibiotic"].to_numpy()] = 1.0
    sensitive *= rng.uniform(0.2, 1, sensitive.shape)
    treat = cultures.filter((pl.col("organism") >= 0) & (rng.random(len(cultures)) < 0.9))
    culture = treat["culture"].to_numpy()
    other, _ = choose(rng, ANTIBIOTICS, len(treat))
    best = sensitive[culture].argmax(axis=1)
    which = np.where((sensitive[culture].max(axis=1) == 0) | (rng.random(len(treat)) < 0.12), other, best)
    dose = np.array([d.doses[0] for d in ANTIBIOTICS])[which]
    begin = treat["stored"].to_numpy() + rng.integers(12, 300, len(treat))
    end = begin + (rng.uniform(20, 90, len(treat)) * HOUR).astype(np.int64)
    return _within(
        cohort,
        medication(
            ANTIBIOTICS, which, dose, admission=treat["admission"].to_numpy(), at=begin, end=end, kind="order"
        ),
    )


def _within(cohort: Cohort, drugs: pl.DataFrame) -> pl.DataFrame:
    leave = pl.Series(cohort.discharge[drugs["admission"].to_numpy()])
    return drugs.with_columns(end=pl.min_horizontal("end", leave)).filter(pl.col("at") < pl.col("end"))


def _written(cultures: pl.DataFrame, tests: pl.DataFrame) -> pl.DataFrame:
    site = np.array(SITES)[cultures["site"].to_numpy()]
    organism = np.array([*NAMES, None], object)[cultures["organism"].to_numpy()]  # -1 is the last one: none
    test = np.array([SITE_TESTS[s] for s in SITES])[cultures["site"].to_numpy()]
    named = frame(
        **{c: cultures[c].to_numpy() for c in ("culture", "admission", "at", "stored")},
        site=site,
        test=test,
        organism=organism,
    )
    letters = frame(
        culture=tests["culture"].to_numpy(), antibiotic=np.array(ANTIBIOTIC_NAMES)[tests["antibiotic"].to_numpy()],
        interpretation=tests["interpretation"].to_numpy().astype(object),
    )  # fmt: skip
    return named.join(letters, on="culture", how="left").sort("culture", "antibiotic")
