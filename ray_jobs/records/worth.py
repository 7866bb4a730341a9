"""What a thing in a record tells about a label, in bits, fitted on the train split and then frozen.

The mutual information of the label and of the thing's state (not known; known; or below, in or above its range), less the
bias that chance alone gives it (Miller 1955: a degree of freedom adds 1 / (2 n ln 2) bits).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from ray_jobs.records.walk import KNOWN, PATIENT, by_patient
from ray_jobs.records.weighed import LEAST, Weighed

MOST_ROWS = 5000  # of the train split that are looked at, drawn by a hash of patient and time
FEWEST_ROWS = 5  # in which a thing must be known


def fit(serialiser: Weighed, events: pl.DataFrame, rows: pl.DataFrame) -> dict[str, float]:
    """Bits by thing, those above LEAST, in order of name.

    rows: hospital, patient_id, prediction_at, label (0 or 1) of the train split alone, [n].
    """
    rows = _drawn(rows)
    asked = rows.select(*PATIENT, "prediction_at").unique().sort(*PATIENT, "prediction_at")
    labels = rows.group_by(*PATIENT, "prediction_at", maintain_order=True).agg("label")
    labels = asked.join(labels, on=[*PATIENT, "prediction_at"], how="left", maintain_order="left")[
        "label"
    ].to_list()
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    place = 0
    for mine, times in by_patient(events, asked):
        record, i = serialiser.record(), 0
        for now in times:
            while i < len(mine) and mine[i][KNOWN] <= now:
                record.add(mine[i])
                i += 1
            states = record.states()
            for label in labels[place]:
                for key, state in states.items():
                    counts[key][state][int(label)] += 1
            place += 1
    positives = int((rows["label"] == 1).sum())
    return _bits(counts, rows.height - positives, positives)


def _drawn(rows: pl.DataFrame) -> pl.DataFrame:
    if rows.height <= MOST_ROWS:
        return rows
    names = rows.select(pl.concat_str(*PATIENT, pl.col("prediction_at").cast(pl.String), separator=chr(31)))
    drawn = [hashlib.md5(name.encode()).digest() for name in names.to_series()]
    return rows.with_columns(pl.Series("drawn", drawn)).sort("drawn", maintain_order=True).head(MOST_ROWS)


def _bits(
    counts: Mapping[str, Mapping[str, Sequence[int]]], negatives: int, positives: int
) -> dict[str, float]:
    worth = {}
    for key in sorted(counts):
        told = [counts[key][state] for state in sorted(counts[key])]
        seen = np.sum(told, axis=0)
        if seen.sum() < FEWEST_ROWS:
            continue
        table = np.array([*told, [negatives - seen[0], positives - seen[1]]], np.float64)
        bits = round(float(mutual_information(table)), 6)
        if bits > LEAST:
            worth[key] = bits
    return worth


def mutual_information(table: np.ndarray) -> float:
    """Bits, corrected for chance, of a table of counts [states, classes]; not below 0."""
    table = table[table.sum(1) > 0]
    n = table.sum()
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.nansum(table / n * np.log2(table / expected))
    freedom = (table.shape[0] - 1) * (np.count_nonzero(table.sum(0)) - 1)
    return max(float(bits - freedom / (2 * n * np.log(2))), 0.0)
