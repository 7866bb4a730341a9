"""When somebody measures: rounds of vital signs, blood draws, the minute monitor; and the values that they then write."""

from __future__ import annotations

import numpy as np
import polars as pl

from orchestration.synthetic.analytes import LABORATORY, PANELS
from orchestration.synthetic.clock import DAY, HOUR
from orchestration.synthetic.cohort import Cohort
from orchestration.synthetic.diseases import DISEASES
from orchestration.synthetic.frames import frame
from orchestration.synthetic.physiology import Physiology

# hours between draws of a panel that an illness asks for; the others follow the morning round
CADENCE_H = {"lactate": 9, "fingerstick": 10, "cardiac": 10, "hemoglobin": 10, "gas": 12}
LABORATORY_PANELS = {panel for panel, concepts in PANELS.items() if set(concepts) <= LABORATORY} - {
    "fingerstick",
    "potassium",
    "hemoglobin",
}


def rounds(rng, admission, start, end, every_h, jitter_h) -> tuple[np.ndarray, np.ndarray]:
    """One visit every `every_h` hours of [start, end), each moved by up to `jitter_h`: (admission, minute)."""
    every = int(every_h * HOUR)
    count = np.maximum((end - start + every - 1) // every, 0)
    who = np.repeat(np.arange(len(admission)), count)
    turn = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    move = rng.uniform(0, jitter_h * HOUR, len(who)).astype(np.int64)
    at = start[who] + turn * every + move
    keep = at < end[who]
    return admission[who][keep], at[keep]


def schedule(rng: np.random.Generator, cohort: Cohort) -> pl.DataFrame:
    """All planned measurements as (admission, panel, at); not yet those that follow a drug."""
    index = np.arange(cohort.size)
    parts: list[tuple[np.ndarray, str, np.ndarray]] = []

    def add(panel: str, admission: np.ndarray, at: np.ndarray, share: float) -> None:
        keep = rng.random(len(at)) < share
        parts.append((admission[keep], panel, at[keep]))

    door = cohort.admit + rng.integers(4, 30, cohort.size)
    for panel, share in (
        ("circulation", 0.97),
        ("breathing", 0.85),
        ("warmth", 0.8),
        ("pain", 0.4),
        ("body", 0.45),
    ):
        add(panel, index, door, share)
    ward_shares = (("circulation", 0.9), ("breathing", 0.45), ("warmth", 0.45), ("pain", 0.15))
    for start, end in ((cohort.ed_end, cohort.icu_start), (cohort.icu_end, cohort.discharge)):
        who, at = rounds(rng, index, start + 30, end, 10, 1.5)
        for panel, share in ward_shares:
            add(panel, who, at, share)
    icu = cohort.in_icu
    line = (rng.random(cohort.size) < 0.35) & icu
    ventilated = icu & (rng.random(cohort.size) < np.clip(0.25 * cohort.severity, 0, 0.6))
    who, at = rounds(rng, index[icu], cohort.icu_start[icu] + 5, cohort.icu_end[icu], 4, 1)
    add("bedside_circulation", who[~line[who]], at[~line[who]], 0.9)
    add("arterial_line", who[line[who]], at[line[who]], 0.9)
    for panel, share in (("breathing", 0.7), ("warmth", 0.5), ("coma", 0.3), ("output", 0.5)):
        add(panel, who, at, share)
    add("ventilator", who[ventilated[who]], at[ventilated[who]], 0.4)
    who, at = rounds(rng, index[icu], cohort.icu_start[icu] + 20, cohort.icu_end[icu], 9, 2)
    for panel, share in (("gas", 0.5), ("gas_more", 0.15), ("basic", 0.4), ("mineral", 0.3)):
        add(panel, who, at, share)
    _blood_draws(rng, cohort, add)
    return pl.concat(frame(admission=a, panel=panel, at=at) for a, panel, at in parts)


def _blood_draws(rng: np.random.Generator, cohort: Cohort, add) -> None:
    index = np.arange(cohort.size)
    first = cohort.admit + rng.integers(15, 70, cohort.size)
    for panel, share in (
        ("basic", 0.96), ("count", 0.95), ("basic_more", 0.35), ("count_more", 0.2), ("mineral", 0.15), ("liver", 0.2), ("coagulation", 0.15),
    ):  # fmt: skip
        add(panel, index, first, share)
    # the morning round, from eleven to thirteen hours UTC
    morning = (first // DAY + 1) * DAY + 11 * HOUR
    who, at = rounds(rng, index, morning, cohort.discharge, 24, 2)
    for panel, share in (("basic", 0.85), ("count", 0.6), ("basic_more", 0.1), ("mineral", 0.15)):
        add(panel, who, at, share)
    for panel in sorted({p for d in DISEASES for p in d.panels}):
        asked = cohort.has @ np.array([panel in d.panels for d in DISEASES])
        add(panel, index[asked], first[asked], 0.85)
        begin = (
            (first + CADENCE_H.get(panel, 24) * HOUR * 0.8).astype(np.int64)
            if panel in CADENCE_H
            else morning
        )
        who, at = rounds(
            rng, index[asked], begin[asked], cohort.discharge[asked], CADENCE_H.get(panel, 24), 2
        )
        add(panel, who, at, 0.6)


def measure(rng: np.random.Generator, body: Physiology, planned: pl.DataFrame) -> pl.DataFrame:
    """Values for a schedule: (admission, concept, at, laboratory, stored, value), one row a concept and minute.

    `stored` is when the hospital can know it: a laboratory result after 20 to 110 minutes, a bedside value within 10.
    """
    cohort = body.cohort
    admission, at = planned["admission"].to_numpy(), planned["at"].to_numpy()
    planned = planned.filter((at >= cohort.admit[admission]) & (at < cohort.discharge[admission]))
    late, soon = rng.integers(20, 110, len(planned)), rng.integers(0, 10, len(planned))
    laboratory = planned["panel"].is_in(sorted(LABORATORY_PANELS))
    rows = (
        planned.with_columns(laboratory=laboratory, stored=pl.col("at") + np.where(laboratory, late, soon))
        .with_columns(concept=pl.col("panel").replace_strict(PANELS, return_dtype=pl.List(pl.String)))
        .explode("concept")
        .unique(["admission", "concept", "at"], maintain_order=True, keep="first")
        .sort("admission", "at", "concept")
    )
    who, at, concept = (rows[c].to_numpy() for c in ("admission", "at", "concept"))
    watched = (concept == "heart_rate") & (at >= cohort.icu_start[who]) & (at < cohort.icu_end[who])
    rows = rows.filter(~watched)  # in intensive care the monitor alone writes heart rate
    admission, at, concept = (rows[c].to_numpy() for c in ("admission", "at", "concept"))
    value = np.zeros(len(rows))
    for name in sorted(set(concept)):
        mine = concept == name
        value[mine] = body.observe(admission[mine], name, at[mine])
    return rows.select("admission", "concept", "at", "laboratory", "stored", value=pl.Series(value))


def monitor(body: Physiology) -> pl.DataFrame:
    """Heart rate of every minute in intensive care: (admission, at, value)."""
    cohort = body.cohort
    index = np.flatnonzero(cohort.in_icu)
    length = (cohort.icu_end - cohort.icu_start)[index]
    who = np.repeat(index, length)
    turn = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    at = cohort.icu_start[who] + turn
    return frame(admission=who, at=at, value=body.observe(who, "heart_rate", at))
