"""Who comes to hospital, why, for how long, and where they lie: persons, admissions and stays, drawn in one go.

Times are int64 minutes since 1970-01-01 UTC. One admission is one index into every array of `Cohort`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from orchestration.synthetic.clock import DAY, HOUR, minute
from orchestration.synthetic.diseases import DISEASES, POSITION
from orchestration.synthetic.places import places

FIRST = minute("2022-01-03T00:00")
LAST = minute("2024-09-30T00:00")
# No admission spans a night on which US clocks change: a written local hour then names one moment only.
CLOCK_CHANGES = [minute(f"{d}T08:00") for d in ("2022-03-13", "2022-11-06", "2023-03-12", "2023-11-05", "2024-03-10", "2024-11-03", "2025-03-09", "2025-11-02")]  # fmt: skip

READMITTED_30D = 0.135  # of those who leave alive
RETURN_LATER = 0.05
MORTALITY = 0.08

PRINCIPAL = np.array([d.principal for d in DISEASES]) / sum(d.principal for d in DISEASES)
PREVALENCE = np.array([d.prevalence for d in DISEASES])
RACES = ["white", "black", "asian", "hispanic", "other", "unknown"]
INSURANCES = ["medicare", "private", "medicaid", "other"]


@dataclass
class Cohort:
    """Arrays over persons (first block) and over admissions (second); `has` is bool [admissions, diseases]."""

    female: np.ndarray
    birth_year: np.ndarray
    race: np.ndarray
    chronic: np.ndarray
    offset_seed: int

    person: np.ndarray
    admit: np.ndarray
    discharge: np.ndarray
    has: np.ndarray
    principal: np.ndarray
    severity: np.ndarray
    died: np.ndarray
    readmitted: np.ndarray
    course: np.ndarray
    peak: np.ndarray
    icu_start: np.ndarray
    icu_end: np.ndarray
    ed_end: np.ndarray
    ward: np.ndarray
    icu_unit: np.ndarray
    insurance: np.ndarray
    death_at: np.ndarray = field(default=None)  # per person, -1 if alive

    @property
    def size(self) -> int:
        return len(self.person)

    @property
    def hours(self) -> np.ndarray:
        return (self.discharge - self.admit) / HOUR

    @property
    def in_icu(self) -> np.ndarray:
        return self.icu_end > self.icu_start

    def age(self) -> np.ndarray:
        """Years at admission, from the year of birth."""
        year = 1970 + (self.admit / (365.2425 * DAY)).astype(int)
        return year - self.birth_year[self.person]


def draw(rng: np.random.Generator, persons: int) -> Cohort:
    """Draw persons and all their admissions; deaths end a person's history."""
    age = np.clip(rng.normal(64, 17, persons), 18, 97)
    female = rng.random(persons) < 0.5
    chronic = _chronic(rng, age, female)
    first = rng.integers(FIRST, LAST, persons)
    waves, who, admit, again = [], np.arange(persons), first, np.zeros(persons, bool)
    for _ in range(4):
        wave = _admissions(rng, who, admit, chronic, age[who], again)
        waves.append(wave)
        chance = rng.random(len(who))
        soon = chance < np.clip(READMITTED_30D * (0.6 + 0.4 * wave["severity"]), 0, 0.5)
        later = ~soon & (chance > 1 - RETURN_LATER)
        back = (soon | later) & ~wave["died"]
        gap = np.where(soon, rng.uniform(1.2, 29, len(who)), rng.uniform(35, 220, len(who))) * DAY
        wave["readmitted"] = soon & back
        if not back.any():
            break
        who, admit, again = who[back], (wave["discharge"] + gap.astype(np.int64))[back], soon[back]
    merged = {key: np.concatenate([wave[key] for wave in waves]) for key in waves[0]}
    order = np.lexsort((merged["admit"], merged["person"]))
    merged = {key: values[order] for key, values in merged.items()}
    cohort = Cohort(
        female=female,
        birth_year=(2023 - age).astype(int),
        race=rng.choice(RACES, persons, p=[0.6, 0.16, 0.06, 0.09, 0.05, 0.04]),
        chronic=chronic,
        offset_seed=int(rng.integers(1 << 31)),
        **merged,
    )
    cohort.death_at = _deaths(rng, cohort)
    return cohort


def _chronic(rng: np.random.Generator, age: np.ndarray, female: np.ndarray) -> np.ndarray:
    weight = np.clip((age / 65)[:, None] ** 1.6, 0.15, 1.5)
    has = rng.random((len(age), len(DISEASES))) < PREVALENCE * weight
    for name in ("prostate cancer", "enlarged prostate"):
        has[female, POSITION[name]] = False
    for name in ("dementia", "osteoporosis", "do not resuscitate"):
        has[age < 55, POSITION[name]] = False
    has[:, POSITION["coronary disease"]] |= has[:, POSITION["chronic heart failure"]] & (
        rng.random(len(age)) < 0.5
    )
    return has


def _admissions(rng, who, admit, chronic, age, again) -> dict[str, np.ndarray]:
    n = len(who)
    rows = np.arange(n)
    principal = rng.choice(len(DISEASES), n, p=PRINCIPAL)
    elective = np.array([d.elective for d in DISEASES])
    while (redraw := again & elective[principal]).any():
        principal[redraw] = rng.choice(len(DISEASES), redraw.sum(), p=PRINCIPAL)
    severity = np.clip(rng.gamma(4.0, 0.25, n), 0.15, 3.0)
    has = chronic[who].copy()
    has[rows, principal] = True
    for name, disease in POSITION.items():
        for complication, chance in DISEASES[disease].complications.items():
            hit = has[:, disease] & (rng.random(n) < chance * np.clip(severity, 0.3, 2.2))
            has[:, POSITION[complication]] |= hit
        if name == "severe sepsis":
            has[:, disease] &= ~has[:, POSITION["septic shock"]]
    added = has @ np.array([d.mortality for d in DISEASES])
    score = 1.5 * (severity - 1) + added + 0.035 * (age - 65)
    died = rng.random(n) < _calibrated(score, MORTALITY)
    stay = np.array([d.stay_h for d in DISEASES])[principal]
    hours = np.clip(stay * np.exp(rng.normal(-0.22, 0.38, n)) * (0.75 + 0.25 * severity), 14, 210)
    hours = np.where(died, np.clip(hours * rng.uniform(0.35, 1.0, n), 10, 160), hours)
    admit = _avoid_clock_changes(admit // 5 * 5, hours)
    discharge = admit + (hours * HOUR).astype(np.int64)
    return {
        "person": who, "admit": admit, "principal": principal, "severity": severity, "has": has, "died": died,
        **places(rng, admit, discharge, principal, severity, has, died),
        "readmitted": np.zeros(n, bool),
        "course": np.where(died, rng.choice([1, 2], n, p=[0.2, 0.8]), rng.choice([0, 1], n, p=[0.65, 0.35])),
        "peak": rng.uniform(0.2, 0.8, n),
        "insurance": np.where(age >= 65, rng.choice(INSURANCES, n, p=[0.75, 0.15, 0.05, 0.05]), rng.choice(INSURANCES, n, p=[0.08, 0.5, 0.34, 0.08])),
    }  # fmt: skip


def _calibrated(score: np.ndarray, share: float) -> np.ndarray:
    """Logistic chances with the given mean: the intercept is found by bisection."""
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        if (1 / (1 + np.exp(-(score + middle)))).mean() > share:
            high = middle
        else:
            low = middle
    return 1 / (1 + np.exp(-(score + (low + high) / 2)))


def _avoid_clock_changes(admit: np.ndarray, hours: np.ndarray) -> np.ndarray:
    end = admit + (hours * HOUR).astype(np.int64)
    for change in CLOCK_CHANGES:
        near = (admit - 2 * DAY < change) & (end + 2 * DAY > change)
        admit = np.where(near, change + 3 * DAY + admit % DAY, admit)
        end = admit + (hours * HOUR).astype(np.int64)
    return admit


def _deaths(rng: np.random.Generator, cohort: Cohort) -> np.ndarray:
    at = np.full(len(cohort.female), -1, np.int64)
    at[cohort.person[cohort.died]] = cohort.discharge[cohort.died]
    last = np.zeros(len(at), np.int64)
    np.maximum.at(last, cohort.person, cohort.discharge)
    after = (at < 0) & (rng.random(len(at)) < 0.05)
    later = last + (rng.uniform(3, 200, len(at)) * DAY).astype(np.int64)
    return np.where(after, later, at)
