"""Where patients lie: emergency department, ward, intensive care; and the stays that follow from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from orchestration.synthetic.clock import DAY, HOUR
from orchestration.synthetic.diseases import DISEASES

if TYPE_CHECKING:
    from orchestration.synthetic.cohort import Cohort

ICUS = ["medical intensive care", "surgical intensive care", "coronary care"]
ED = "emergency department"


def places(rng, admit, discharge, principal, severity, has, died) -> dict[str, np.ndarray]:
    """Emergency department, then intensive care for some, at once or from the ward; a few boundaries fall on midnight."""
    n = len(admit)
    length = (discharge - admit).astype(float)
    chance = np.clip(
        (has * np.array([d.icu for d in DISEASES])).max(axis=1) * (0.45 + 0.55 * severity), 0, 0.97
    )
    icu = rng.random(n) < np.where(died, np.maximum(chance, 0.45), 0.9 * chance)
    emergency = ~np.array([d.elective for d in DISEASES])[principal]
    ed_end = np.where(
        emergency, admit + np.minimum(rng.uniform(1.5, 6, n) * HOUR, length * 0.25).astype(np.int64), admit
    )
    late = rng.random(n) < 0.25
    start = ed_end + np.where(
        late, rng.uniform(0.1, 0.35, n) * length, np.where(emergency, 0, 4 * HOUR)
    ).astype(np.int64)
    icu_length = np.clip(rng.lognormal(np.log(15), 0.45, n) * (0.7 + 0.3 * severity), 6, 48) * HOUR
    end = np.minimum(start + icu_length.astype(np.int64), discharge - np.where(died, 0, 5 * HOUR))
    end = np.where(died & (rng.random(n) < 0.7), discharge, end)
    start = np.maximum(start, end - 40 * HOUR)
    midnight = rng.random(n) < 0.06
    local = rng.random(n) < 0.5  # midnight in UTC, or at six hours west of it
    shift = np.where(local, 6 * HOUR, 0)
    on_midnight = (end - shift) // DAY * DAY + shift
    end = np.where(midnight & (on_midnight > start + 4 * HOUR), on_midnight, end)
    icu &= end - start >= 4 * HOUR
    ward = np.array([_ward(d.name) for d in DISEASES])[principal]
    unit = np.where(ward == "surgery", ICUS[1], np.where(ward == "cardiology", ICUS[2], ICUS[0]))
    return {
        "discharge": discharge, "ed_end": ed_end, "icu_start": np.where(icu, start, discharge),
        "icu_end": np.where(icu, end, discharge), "ward": ward, "icu_unit": unit,
    }  # fmt: skip


def _ward(disease: str) -> str:
    surgical = {
        "cholecystitis",
        "hip fracture",
        "knee arthritis",
        "hernia",
        "coronary disease for bypass",
        "colon cancer",
        "diverticulitis",
    }
    heart = {
        "heart failure",
        "myocardial infarction",
        "atrial fibrillation with fast rate",
        "chest pain",
        "syncope",
    }
    brain = {"ischemic stroke", "intracerebral hemorrhage", "seizure", "alcohol withdrawal"}
    for ward, names in (
        ("surgery", surgical),
        ("cardiology", heart),
        ("neurology", brain),
        ("oncology", {"neutropenia"}),
    ):
        if disease in names:
            return ward
    return "medicine"


def stays(cohort: Cohort) -> dict[str, np.ndarray]:
    """Every place a patient lay in: arrays admission, start, end, unit, icu; sorted by admission and start."""
    parts = []
    index = np.arange(cohort.size)
    ed = cohort.ed_end > cohort.admit
    parts.append((index[ed], cohort.admit[ed], cohort.ed_end[ed], np.full(ed.sum(), ED), False))
    before = np.where(cohort.in_icu, cohort.icu_start, cohort.discharge)
    parts.append((index, cohort.ed_end, before, cohort.ward, False))
    icu = cohort.in_icu
    parts.append((index[icu], cohort.icu_start[icu], cohort.icu_end[icu], cohort.icu_unit[icu], True))
    after = icu & (cohort.icu_end < cohort.discharge)
    parts.append((index[after], cohort.icu_end[after], cohort.discharge[after], cohort.ward[after], False))
    out = {
        "admission": np.concatenate([p[0] for p in parts]),
        "start": np.concatenate([p[1] for p in parts]),
        "end": np.concatenate([p[2] for p in parts]),
        "unit": np.concatenate([np.asarray(p[3], dtype=object) for p in parts]),
        "icu": np.concatenate([np.full(len(p[0]), p[4]) for p in parts]),
    }
    keep = out["end"] > out["start"]
    order = np.lexsort((out["start"][keep], out["admission"][keep]))
    return {key: values[keep][order] for key, values in out.items()}
