"""Four pictures of a task: ROC, precision and recall, calibration, and AUROC by the number of labels of a class."""

from __future__ import annotations

import numpy as np
import polars as pl

from ray_jobs import plots
from ray_jobs.prediction.comparison import Compared
from ray_jobs.reporting import Markdown
from ray_jobs.statistics import BINS

# of matplotlib's tab20, dark ones first, so that neighbours differ
COLOURS = [
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
    "#aec7e8", "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94", "#f7b6d2", "#c7c7c7", "#dbdb8d", "#9edae5",
]  # fmt: skip


def of_task(task: str, one: Compared, shots: pl.DataFrame) -> Markdown:
    """shots: of `comparison.by_shots`, of this task alone. A task with one class has no curves: its calibration alone is
    drawn."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    drawn = plots.figure(width=16, height=3.4)
    roc, recall, calibration, few = drawn.subplots(1, 4)
    for i, (name, scores) in enumerate(one.scores.items()):
        colour, labels, scores = COLOURS[i % len(COLOURS)], one.labels[one.told(name)], scores[one.told(name)]
        if len(np.unique(labels)) == 2:
            wrong, right, _ = roc_curve(labels, scores)
            roc.plot(wrong, right, label=name, linewidth=1, color=colour)
            precision, found, _ = precision_recall_curve(labels, scores)
            recall.plot(found, precision, linewidth=1, color=colour)
        calibration.plot(*_calibration(labels, scores), marker=".", linewidth=1, color=colour, label=name)
        mine = (
            shots.filter((pl.col("contestant") == name) & (pl.col("k") > 0) & pl.col("auroc").is_finite())
            .group_by("k")
            .agg(
                pl.col("auroc").mean().alias("mean"),
                pl.col("auroc").min().alias("low"),
                pl.col("auroc").max().alias("high"),
            )
        )
        if mine.height:
            k, mean, low, high = (mine.sort("k")[c].to_numpy() for c in ("k", "mean", "low", "high"))
            few.plot(k, mean, marker=".", linewidth=1, color=colour)
            few.fill_between(k, low, high, alpha=0.15, color=colour, linewidth=0)
            few.axhline(one.figures[name]["auroc"].value, linewidth=0.5, linestyle=":", color=colour)
    for axes in (roc, calibration):
        axes.plot([0, 1], [0, 1], linewidth=0.5, color="grey")
    recall.axhline(one.labels.mean(), linewidth=0.5, color="grey")
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", title=task)
    recall.set(xlabel="sensitivity", ylabel="precision", ylim=(0, 1.02))
    calibration.set(xlabel="probability", ylabel="frequency")
    few.set(xlabel="labels of a class (dotted: all)", ylabel="AUROC")
    few.set_xscale("log", base=2)
    drawn.legend(*calibration.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return plots.image(drawn, f"curves of {task}")


def _calibration(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability and frequency of each bin of equal width that has rows."""
    bins = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    used = counts > 0
    means = (np.bincount(bins, values, minlength=BINS)[used] / counts[used] for values in (scores, labels))
    return next(means), next(means)
