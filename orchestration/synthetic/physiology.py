"""What a patient's body shows at any minute: one pure function of admission, concept and time.

value = healthy level + the person's own offset + chronic effects + acute effects * course(t) + drift(t) + drug responses
+ noise, on the natural scale or, for concepts that vary in ratio, on the logarithm. Even the noise is a function of
(admission, concept, minute): whoever looks twice at one minute sees one value, and values that follow from one another agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestration.synthetic.analytes import (
    BETWEEN,
    CENTRE,
    CONCEPTS,
    HIGH,
    INDEX,
    LOG,
    LOW,
    WITHIN,
)
from orchestration.synthetic.clock import HOUR
from orchestration.synthetic.cohort import Cohort
from orchestration.synthetic.diseases import DISEASES
from orchestration.synthetic.pharmacy import Response

# Whoever dies shows it, as the end comes nearer.
DYING = {
    "lactate": 0.45, "sbp": -14, "dbp": -7, "heart_rate": 10, "spo2": -2.5, "respiratory_rate": 3, "creatinine": 0.25,
    "clouding": 0.8, "ph": -0.04, "base_excess": -3, "bicarbonate": -2, "urine_output": -0.4,
}  # fmt: skip
WOMEN = {"hemoglobin": -1.1, "creatinine": -0.14, "weight": -12, "height": -13, "ck": -0.25}


def _matrix(kind: str) -> np.ndarray:
    """Effects as [disease, concept]."""
    out = np.zeros((len(DISEASES), len(CONCEPTS)))
    for row, disease in enumerate(DISEASES):
        for concept, amount in getattr(disease, kind).items():
            out[row, INDEX[concept]] = amount
    return out


ACUTE = _matrix("acute")
CHRONIC = _matrix("chronic")


@dataclass
class Doses:
    """Single doses that move a concept, as matrices [admission, dose]; `size` 0 where there is none."""

    at: np.ndarray
    size: np.ndarray
    response: Response

    def effect(self, admission: np.ndarray, at: np.ndarray) -> np.ndarray:
        """What the doses given so far add to the concept at each (admission, minute)."""
        since = (at[:, None] - self.at[admission]) / HOUR
        after = np.clip(since, 0, None)
        rise = 1 - np.exp(-3 * after / self.response.onset_h)
        wane = np.exp(-((after / self.response.lasts_h) ** 2))
        return np.where(since > 0, self.size[admission] * rise * wane, 0.0).sum(axis=1)


class Physiology:
    """The bodies of a cohort. `doses` may be filled while care goes on."""

    def __init__(self, cohort: Cohort):
        rng = np.random.default_rng(cohort.offset_seed)
        shape = (cohort.size, len(CONCEPTS))
        offset = rng.normal(size=(len(cohort.female), len(CONCEPTS)))
        self.cohort = cohort
        self.doses: list[Doses] = []
        self.base = (CENTRE + BETWEEN * offset)[cohort.person] + cohort.has @ CHRONIC
        for concept, amount in WOMEN.items():
            self.base[cohort.female[cohort.person], INDEX[concept]] += amount
        acute = cohort.has @ ACUTE * rng.uniform(0.6, 1.4, shape)
        self.acute = acute * (0.35 + 0.65 * cohort.severity)[:, None]
        for concept, amount in DYING.items():
            self.acute[cohort.died, INDEX[concept]] += amount
        self.lag_h = rng.uniform(0, 14, shape)
        self.drift = WITHIN * rng.normal(0, 1.4, shape)
        self.hump = rng.random(shape) < 0.5
        self.noise_key = np.uint64(cohort.offset_seed)

    def course(self, admission: np.ndarray, hours: np.ndarray) -> np.ndarray:
        """How ill, 1 = as at the door: 0 recovers, 1 worsens and recovers, 2 gets worse to the end."""
        length = self.cohort.hours[admission]
        share = np.clip(hours / length, 0, 1)
        recovers = np.exp(-share / 0.45)
        relapses = 0.5 * np.exp(-share / 0.5) + 1.1 * np.exp(
            -(((share - self.cohort.peak[admission]) / 0.22) ** 2)
        )
        declines = 0.6 + 1.0 * share
        return np.choose(self.cohort.course[admission], [recovers, relapses, declines])

    def value(self, admission: np.ndarray, concept: str, at: np.ndarray) -> np.ndarray:
        """The concept (one of `analytes.CONCEPTS`) in its canonical unit, float64, at each (admission, minute)."""
        column = INDEX[concept]
        hours = (at - self.cohort.admit[admission]) / HOUR
        share = np.clip(hours / self.cohort.hours[admission], 0, 1)
        bend = np.where(self.hump[admission, column], 4 * share * (1 - share), share)
        level = self.base[admission, column] + self.drift[admission, column] * bend
        level += self.acute[admission, column] * self.course(admission, hours - self.lag_h[admission, column])
        for doses in self.doses:
            if doses.response.concept == concept:
                level += doses.effect(admission, at)
        level += WITHIN[column] * 0.6 * self.noise(admission, column, at)
        level = np.exp(level) if LOG[column] else level
        return _soft_clip(level, LOW[column], HIGH[column])

    def noise(self, admission: np.ndarray, column: int, at: np.ndarray) -> np.ndarray:
        """Standard normal, a pure function of its arguments (splitmix64 and Box-Muller)."""
        seed = (self.noise_key << np.uint64(32)) + np.uint64(column)
        key = admission.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + at.astype(np.uint64)
        first, second = _uniform(key ^ _mix(seed)), _uniform(_mix(key) ^ _mix(seed + np.uint64(1)))
        return np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)

    def observe(self, admission: np.ndarray, concept: str, at: np.ndarray) -> np.ndarray:
        """Like `value`, and the concepts that follow from others of the same minute."""

        def see(name: str) -> np.ndarray:
            return self.value(admission, name, at)

        def wobble(column: int, size: float) -> np.ndarray:
            return size * self.noise(admission, 1000 + column, at)

        def diastolic() -> np.ndarray:
            return np.minimum(see("dbp"), see("sbp") - 12)

        def whole(value: np.ndarray, low: int, high: int) -> np.ndarray:
            return np.clip(np.rint(value), low, high)

        def hematocrit() -> np.ndarray:
            return 2.96 * see("hemoglobin") + wobble(1, 0.5)

        def cells() -> np.ndarray:
            return 10 * hematocrit() / see("mcv")

        match concept:
            case "dbp":
                return diastolic()
            case "mbp":
                return diastolic() + (see("sbp") - diastolic()) / 3
            case "sbp_arterial":
                return see("sbp") + 4 + wobble(2, 3)
            case "dbp_arterial":
                return diastolic() - 2 + wobble(3, 1.5)
            case "mbp_arterial":
                return diastolic() + (see("sbp") - diastolic()) / 3 + wobble(4, 1.5)
            case "hematocrit":
                return hematocrit()
            case "rbc":
                return cells()
            case "mch":
                return 10 * see("hemoglobin") / cells()
            case "mchc":
                return 100 * see("hemoglobin") / hematocrit()
            case "anion_gap":
                return np.clip(see("sodium") - see("chloride") - see("bicarbonate"), 2, 40)
            case "pt":
                return 11.6 * see("inr") + np.abs(wobble(5, 0.2))
            case "gcs_eye":
                return whole(4.3 - 0.9 * see("clouding"), 1, 4)
            case "gcs_verbal":
                return whole(5.3 - 1.2 * see("clouding"), 1, 5)
            case "gcs_motor":
                return whole(6.3 - 1.0 * see("clouding"), 1, 6)
            case "pain":
                return whole(see("pain"), 0, 10)
            case _:
                return see(concept)


def _soft_clip(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Keep within the limits without heaping values on them: what lies beyond is folded back in, a tenth of the way."""
    span = (high - low) * 0.12
    value = np.where(value > high, high - span * (1 - np.exp(-(value - high) / (high - low))), value)
    return np.where(value < low, low + span * (1 - np.exp(-(low - value) / (high - low))), value)


def _mix(key: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return key ^ (key >> np.uint64(31))


def _uniform(key: np.ndarray) -> np.ndarray:
    return (_mix(key) >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54
