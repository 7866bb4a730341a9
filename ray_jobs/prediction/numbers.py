"""Tasks that ask for a number, such as the hours until a stay ends: ridge regression and LightGBM over counts, by mean absolute error.

Settings are chosen on the tuning split and refitted on train and tuning together. Every error is told beside that of the simplest
answer, the median of the train split, for the same rows and the same draws of persons.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from ray_jobs.prediction.baselines import GRIDS, distinct
from ray_jobs.statistics import PatientBootstrap, bounded

MODELS = ("ridge", "LightGBM")
ALPHAS = {"alpha": [1.0, 10.0, 100.0, 1000.0]}


def fit(
    model: str, grid: str, features: csr_matrix, labels: np.ndarray, splits: np.ndarray, threads: int = 1
) -> tuple[np.ndarray, dict[str, object]]:
    """Numbers of the held-out rows, float64, and the settings that were chosen.

    features: [n, columns]; labels: float [n]; splits: train, tuning or held_out, [n]. What is foreseen stays between the least
    and the greatest label of train and tuning. Without a tuning row the first settings stand. Raises ValueError without a train row.
    """
    from sklearn.base import clone

    train, tuning, held_out = (splits == name for name in ("train", "tuning", "held_out"))
    if not train.any() or not features.shape[1]:
        raise ValueError("the train split has no row, or nothing is counted in it")
    best, least, chosen = None, np.inf, {}
    for settings in distinct(ALPHAS if model == "ridge" else GRIDS[grid]["LightGBM"]):
        tried, error = _estimator(model, settings, threads).fit(features[train], labels[train]), np.inf
        if tuning.any():
            error = float(np.abs(tried.predict(features[tuning]) - labels[tuning]).mean())
        if best is None or error < least:
            best, least, chosen = tried, error, settings
    both = train | tuning
    best = clone(best).fit(features[both], labels[both])
    return np.clip(best.predict(features[held_out]), labels[both].min(), labels[both].max()), chosen


def judged(
    kind: str, grid: str, features: csr_matrix, labelled: pl.DataFrame, threads: int = 1
) -> dict[str, object]:
    """Mean absolute error of every model over one kind of counts, with intervals, and what it is less than the median's.

    labelled: label, split, person, [n], in the order of features.
    """
    truth, splits = labelled["label"].to_numpy().astype(np.float64), labelled["split"].to_numpy()
    held = splits == "held_out"
    found: dict[str, object] = {"labels": int(held.sum()), "train_labels": int((splits == "train").sum())}
    if not held.any() or not (splits == "train").any():
        return {**found, "not_fitted": "the train or the held-out split is empty"}
    bootstrap = PatientBootstrap(labelled["person"].to_numpy()[held])
    simplest = np.abs(np.median(truth[splits == "train"]) - truth[held])
    found["median of train"] = {"mae": bootstrap.interval(simplest).as_dict()}
    for model in MODELS:
        told, chosen = fit(model, grid, features, truth, splits, threads)
        error = np.abs(told - truth[held])
        found[f"{kind} counts, {model}"] = {
            "mae": bootstrap.interval(error).as_dict(),
            "less_than_the_median": bootstrap.difference(simplest, error).as_dict(),
            "chosen": chosen,
        }
    return found


def table(results: dict[str, dict]) -> str:
    """Markdown: one line a task and model on the held-out split, with 95 % intervals of the bootstrap of persons."""
    lines = ["| task | n | model | mean absolute error (95 %) | less than the median's |", "|---" * 5 + "|"]
    for task, result in sorted(results.items()):
        if why := result.get("not_fitted"):
            lines.append(f"| {task} | {result['labels']} | not fitted: {why} |||")
        for model, figures in result.items():
            if isinstance(figures, dict):
                gain = figures.get("less_than_the_median")
                cells = [bounded(figures["mae"]), bounded(gain) if gain else ""]
                lines.append(f"| {task} | {result['labels']} | {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _estimator(model: str, settings: dict[str, object], threads: int):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    if model == "ridge":
        from sklearn.linear_model import Ridge

        return make_pipeline(MaxAbsScaler(), Ridge(solver="sparse_cg", **settings))
    from lightgbm import LGBMRegressor

    fixed = {
        "n_jobs": threads,
        "random_state": 0,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    return LGBMRegressor(objective="mae", **fixed, **settings)
