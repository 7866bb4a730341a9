"""What every model on fixed features is asked: the whole train split, a few labels of it, and another hospital's.

Few labels are drawn as EHRSHOT draws them (arXiv 2307.02028): k of each class from train and from tuning, nested (the k of
a replicate are the first k of its largest draw), with replacement where a class has fewer, the test set fixed and whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from ray_jobs.config import JobError
from ray_jobs.prediction import baselines, predictions

SHOTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128)
REPLICATES = 5
Features = np.ndarray | csr_matrix


def write_parts(
    folder: Path,
    contestant: str,
    task: str,
    params: Mapping[str, object],
    model: str,
    features: Features,
    labelled: pl.DataFrame,
    threads: int = 1,
) -> None:
    """Write the parts few_shot and left_out where a job's parameters ask for them.

    params: `few_shot` (`tasks`, `shots`, `replicates`, `grid`), `left_out` (tasks), `grid`; features: [n, columns];
    labelled: hospital, patient_id, prediction_at, label, split, [n], in the same order.
    """
    few, grid = dict(params.get("few_shot") or {}), str(params.get("grid", "ehrshot"))
    told = {}
    if task in few.get("tasks", []):
        told["few_shot"] = few_shot(few, model, str(few.get("grid", grid)), features, labelled, threads)
    if task in (params.get("left_out") or []):
        told["left_out"] = left_out(model, grid, features, labelled, threads)
    for part, frame in told.items():
        if frame is not None:
            predictions.write(folder, contestant, task, part, frame)


def draw(labels: np.ndarray, k: int, most: int, seed: int) -> np.ndarray:
    """Row numbers of k of each class, the negative class first, [k times the classes that there are].

    labels: bool [n]. Each class is shuffled by a generator of its own with the same seed; what it lacks of `most` is
    drawn from it with replacement by the same generator.
    """
    drawn = []
    for which in (False, True):
        rows, rng = np.flatnonzero(labels == which), np.random.RandomState(seed)
        if len(rows):
            order = rng.permutation(rows)[:most]
            if len(order) < most:
                order = np.concatenate([order, rng.choice(rows, most - len(order), replace=True)])
            drawn.append(order[:k])
    return np.concatenate(drawn) if drawn else np.zeros(0, int)


def few_shot(
    asked: Mapping[str, object],
    model: str,
    grid: str,
    features: Features,
    labelled: pl.DataFrame,
    threads: int = 1,
) -> pl.DataFrame | None:
    """Predictions of the part few_shot, or None if the train split has one class or nothing is held out.

    asked: `shots` and `replicates`, by default EHRSHOT's.
    """
    shots, replicates = list(asked.get("shots", SHOTS)), int(asked.get("replicates", REPLICATES))
    if not shots or min(shots) < 1:
        raise JobError("params.few_shot.shots: needs numbers of at least 1")
    labels, splits = labelled["label"].to_numpy() == 1, labelled["split"].to_numpy()
    held = np.flatnonzero(splits == "held_out")
    if not len(held) or len(np.unique(labels[splits == "train"])) < 2:
        return None
    frames = []
    for replicate in range(replicates):
        for k in shots:
            rows, names = [held], [np.full(len(held), "held_out")]
            for split in ("train", "tuning"):
                mine = np.flatnonzero(splits == split)
                rows.append(mine[draw(labels[mine], k, max(shots), replicate)])
                names.append(np.full(len(rows[-1]), split))
            at, where = np.concatenate(rows), np.concatenate(names)
            fitted = baselines.fit(model, grid, features[at], labels[at], where, threads, refit=False)
            told = predictions.told(labelled[held], fitted.probabilities, shots=k, replicate=replicate)
            frames.append(told)
    return pl.concat(frames)


def left_out(
    model: str, grid: str, features: Features, labelled: pl.DataFrame, threads: int = 1
) -> pl.DataFrame | None:
    """Predictions of the part left_out: those of each hospital by a model that learned from all others; None if there is
    one hospital only. A hospital is passed over if the others' train split has one class."""
    labels, splits = labelled["label"].to_numpy() == 1, labelled["split"].to_numpy()
    hospitals = labelled["hospital"].to_numpy()
    frames = []
    for rows in _one_at_a_time(hospitals, splits):
        try:
            fitted = baselines.fit(model, grid, features[rows], labels[rows], splits[rows], threads)
        except ValueError:
            continue
        frames.append(predictions.told(labelled[rows[splits[rows] == "held_out"]], fitted.probabilities))
    return pl.concat(frames) if frames else None


def _one_at_a_time(hospitals: np.ndarray, splits: np.ndarray) -> Iterator[np.ndarray]:
    """Row numbers: one hospital's held-out rows with the other hospitals' train and tuning rows."""
    names = np.unique(hospitals)
    for name in names if len(names) > 1 else []:
        rows = np.flatnonzero((hospitals == name) == (splits == "held_out"))
        if (splits[rows] == "held_out").any():
            yield rows
