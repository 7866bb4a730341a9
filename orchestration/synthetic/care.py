"""What is done for the patient: orders, single doses that show an effect, infusions, cultures, antibiotics, procedures."""

from __future__ import annotations

import numpy as np
import polars as pl

from orchestration.synthetic.clock import HOUR
from orchestration.synthetic.coding import PROCEDURES
from orchestration.synthetic.cohort import Cohort
from orchestration.synthetic.diseases import DISEASES
from orchestration.synthetic.frames import frame
from orchestration.synthetic.pharmacy import DOSES, INFUSIONS, ORDERS, RESPONSES, Drug
from orchestration.synthetic.physiology import Doses, Physiology

# A dose is given when the patient shows the need (concept, at least or at most), else only by this chance.
NEED = {
    "insulin": ("glucose", 150, 1, 0.5),
    "pressure": ("sbp", 142, 1, 0.4),
    "electrolyte": ("potassium", 3.9, -1, 0.5),
    "antipyretic": ("temperature", 37.7, 1, 0.4),
    "transfusion": ("hemoglobin", 8.6, -1, 0.12),
    "rate control": ("heart_rate", 95, 1, 0.5),
}
MAX_DOSES = 3


def chance(cohort: Cohort, kind: str, name: str) -> np.ndarray:
    """Chance [admission] of a drug class or procedure: each disease asks for it independently."""
    asks = np.array([getattr(d, kind).get(name, 0.0) for d in DISEASES])
    return 1 - np.prod(np.where(cohort.has, 1 - asks, 1.0), axis=1)


def choose(rng: np.random.Generator, drugs: tuple[Drug, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in `drugs` by weight, and one of each drug's doses."""
    weight = np.array([d.weight for d in drugs])
    which = rng.choice(len(drugs), count, p=weight / weight.sum())
    longest = max(len(d.doses) for d in drugs)
    doses = np.array([(list(d.doses) * longest)[:longest] for d in drugs])
    return which, doses[which, rng.integers(0, longest, count)]


def medication(
    drugs: tuple[Drug, ...], which: np.ndarray, dose: np.ndarray, **columns: np.ndarray | str
) -> pl.DataFrame:
    """Rows of `truth.medications`: names, unit and route of the chosen drugs beside the given columns."""
    return frame(
        drug=np.array([d.name for d in drugs])[which],
        amount=dose.astype(float),
        unit=np.array([d.unit for d in drugs])[which],
        route=np.array([d.route for d in drugs])[which],
        **columns,
    )


def orders(rng: np.random.Generator, cohort: Cohort) -> pl.DataFrame:
    """Regular orders: begun in the first hours, kept to the end of the stay or stopped before it."""
    parts = []
    for name, drugs in ORDERS.items():
        hit = np.flatnonzero(rng.random(cohort.size) < 0.8 * chance(cohort, "drugs", name))
        which, dose = choose(rng, drugs, len(hit))
        length = cohort.discharge[hit] - cohort.admit[hit]
        begin = cohort.admit[hit] + (rng.beta(1.1, 4.5, len(hit)) * 0.9 * length).astype(np.int64) + 20
        stop = np.where(rng.random(len(hit)) < 0.3, rng.uniform(0.3, 0.9, len(hit)), 1.0)
        end = begin + ((cohort.discharge[hit] - begin) * stop).astype(np.int64)
        parts.append(medication(drugs, which, dose, admission=hit, at=begin, end=end, kind="order"))
    return pl.concat(parts)


def doses(rng: np.random.Generator, body: Physiology) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Single doses, their effect (entered into `body`), and the measurements before and after them as a schedule."""
    cohort, given, planned = body.cohort, [], []
    for name, drugs in DOSES.items():
        wanted = rng.random(cohort.size) < chance(cohort, "drugs", name)
        at = np.full((cohort.size, MAX_DOSES), np.iinfo(np.int64).max // 2)
        count = np.where(wanted, 1 + rng.poisson(0.9, cohort.size), 0).clip(0, MAX_DOSES)
        length = cohort.discharge - cohort.admit
        draws = rng.uniform(0.04, 0.9, (cohort.size, MAX_DOSES))
        for turn in range(MAX_DOSES):
            when = cohort.admit + 60 + (draws[:, turn] * (length - 60)).astype(np.int64)
            taken = (turn < count) & _needs(rng, body, name, when)
            at[taken, turn] = when[taken]
        who, turn = np.nonzero(at < np.iinfo(np.int64).max // 2)
        moment = at[who, turn]
        which, dose = choose(rng, drugs, len(who))
        given.append(
            medication(drugs, which, dose, admission=who, at=moment, end=moment, kind="administration")
        )
        for response in RESPONSES[name]:
            size = np.zeros(at.shape)
            luck = rng.random(len(who))
            strength = np.clip(rng.normal(1, 0.35, len(who)), 0.3, 2)
            strength[luck < response.silent + response.against] *= -0.8
            strength[luck < response.silent] *= 0.1
            size[who, turn] = response.size * strength
            body.doses.append(Doses(at, size, response))
            before, earlier = (
                moment - rng.integers(5, 75, len(who)),
                moment - rng.integers(120, 400, len(who)),
            )
            after = moment + (rng.uniform(*response.recheck_h, len(who)) * HOUR).astype(np.int64)
            for when, share in ((before, 0.7), (earlier, 0.4), (after, 0.92), (after + 150, 0.3)):
                keep = rng.random(len(who)) < share
                planned.append(frame(admission=who[keep], panel=response.panel, at=when[keep]))
    return pl.concat(given), pl.concat(planned)


def _needs(rng: np.random.Generator, body: Physiology, name: str, when: np.ndarray) -> np.ndarray:
    if name not in NEED:
        return np.ones(len(when), bool)
    concept, border, sign, otherwise = NEED[name]
    value = body.value(np.arange(len(when)), concept, when)
    return (sign * value >= sign * border) | (rng.random(len(when)) < otherwise)


def infusions(rng: np.random.Generator, cohort: Cohort) -> pl.DataFrame:
    """Continuous infusions with a rate: vasopressors and sedation in intensive care, fluid anywhere."""
    parts = []
    for name, drugs in INFUSIONS.items():
        wanted = rng.random(cohort.size) < chance(cohort, "drugs", name)
        anywhere = name == "fluid"
        hit = np.flatnonzero(wanted & (anywhere | cohort.in_icu))
        start = cohort.admit[hit] + 30 if anywhere else cohort.icu_start[hit]
        stop = cohort.discharge[hit] if anywhere else cohort.icu_end[hit]
        begin = start + (rng.beta(1, 5, len(hit)) * (stop - start) * 0.8).astype(np.int64)
        end = begin + np.minimum(
            (stop - begin) * rng.uniform(0.3, 1, len(hit)), rng.uniform(3, 22, len(hit)) * HOUR
        ).astype(np.int64)
        which, rate = choose(rng, drugs, len(hit))
        parts.append(medication(drugs, which, rate, admission=hit, at=begin, end=end, kind="infusion"))
    return pl.concat(parts)


def procedures(rng: np.random.Generator, cohort: Cohort) -> pl.DataFrame:
    """Procedures (admission, at, end, name) somewhere in the first half of the stay, or in intensive care for its own."""
    parts = []
    for name in PROCEDURES:
        hit = np.flatnonzero(rng.random(cohort.size) < chance(cohort, "procedures", name))
        start = cohort.ed_end[hit] + (
            rng.beta(1.2, 3, len(hit)) * (cohort.discharge[hit] - cohort.ed_end[hit]) * 0.6
        ).astype(np.int64)
        length = (rng.uniform(0.4, 3.5, len(hit)) * HOUR).astype(np.int64)
        end = np.minimum(start + length, cohort.discharge[hit])
        parts.append(frame(admission=hit, at=start, end=end, name=name))
    return pl.concat(parts)
