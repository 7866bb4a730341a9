"""Contestants of one task on the same rows: figures with intervals, paired differences, groups, few labels, other hospitals.

Every contestant of a task is judged on the rows of the baseline, or on those of them that it tells, and there against the
baseline on the same rows; one that tells rows which the baseline does not is named and not compared. The baseline of a task
is, of those that may be, the one that ranked the tuning split best: the held-out split has no say in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch

import numpy as np
import polars as pl

from ray_jobs.statistics import (
    FEWEST_PATIENTS,
    RANKED,
    Interval,
    PatientBootstrap,
    Ranking,
    bounds,
    classify,
    holm,
    p_value,
    rarer_class,
)

KEY = ["subject_id", "prediction_time", "boolean_value"]
CHANCE = "predicted_boolean_probability"
FEWEST = 30  # rows below which a figure is marked
SURE = 0.05


@dataclass
class Compared:
    """What is known of one task. `rows` hold KEY in the order of `labels` and of every contestant's `scores` [n], which
    are nan where it tells nothing."""

    rows: pl.DataFrame
    labels: np.ndarray
    persons: np.ndarray  # the unit of the bootstrap, [n]
    baseline: str
    bootstrap: PatientBootstrap
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    figures: dict[str, dict[str, Interval]] = field(default_factory=dict)
    draws: dict[str, np.ndarray] = field(default_factory=dict)  # of AUROC
    minus: dict[str, Interval] = field(default_factory=dict)  # AUROC less the baseline's
    p: dict[str, float] = field(default_factory=dict)  # corrected
    elsewhere: dict[str, int] = field(default_factory=dict)  # contestants that tell other rows: how many

    def told(self, name: str) -> np.ndarray:
        """Which rows a contestant tells, bool [n]."""
        return np.isfinite(self.scores[name])


def compare(
    told: pl.DataFrame,
    baselines: Sequence[str],
    tuning: Mapping[tuple[str, str], float] | None = None,
    persons: pl.DataFrame | None = None,
) -> dict[str, Compared]:
    """Task to what was compared; p is corrected over all contestants and tasks at once (Holm).

    told: of `predictions.read`. baselines: contestants that may be the baseline, tuning: of `predictions.read_tuning`; where
    none of them tells a task, the first contestant's rows are the rows. persons: subject_id and person, of whom several
    subjects may be one; without it each subject is one.
    """
    found, raw = {}, {}
    for (task,), of in told.filter(pl.col("part") == "all").partition_by("task", as_dict=True).items():
        by_name = {c: f.sort(KEY) for (c,), f in of.partition_by("contestant", as_dict=True).items()}
        baseline = chosen(task, [b for b in baselines if b in by_name] or baselines, tuning or {})
        names = sorted(by_name, key=lambda c: (c != baseline, c))
        rows = by_name[names[0]].select(KEY)
        who = named(rows, persons)
        one = found[task] = Compared(
            rows, rows["boolean_value"].to_numpy(), who, baseline, PatientBootstrap(who)
        )
        for name in names:
            scores = placed(by_name[name], rows)
            if scores is None:
                one.elsewhere[name] = by_name[name].height
                continue
            one.scores[name] = scores
            one.figures[name], one.draws[name], theirs = _judged(one, name)
            if theirs is not None:
                ours, counts = (
                    one.figures[name]["auroc"],
                    (one.figures[name]["auroc"].questions, one.bootstrap.n_patients),
                )
                value, draws = theirs
                one.minus[name] = Interval(ours.value - value, *bounds(one.draws[name] - draws), *counts)
                mine = one.told(name)
                if rarer_class(one.bootstrap.patient[mine], one.labels[mine]) >= FEWEST_PATIENTS:
                    raw[task, name] = p_value(one.draws[name], draws)
    for (task, name), p in holm(raw).items():
        found[task].p[name] = p
    return dict(sorted(found.items(), key=lambda task: ("/" in task[0], task[0])))


def chosen(task: str, baselines: Sequence[str], tuning: Mapping[tuple[str, str], float]) -> str:
    """The baseline with the highest AUROC on tuning; the first of them where tuning tells nothing apart."""
    return max(baselines, key=lambda name: tuning.get((name, task), -1.0))


def named(rows: pl.DataFrame, persons: pl.DataFrame | None) -> np.ndarray:
    """The person of each row, [n]."""
    if persons is None:
        return rows["subject_id"].to_numpy()
    return rows.join(persons, on="subject_id", how="left", maintain_order="left")["person"].to_numpy()


def placed(of: pl.DataFrame, rows: pl.DataFrame) -> np.ndarray | None:
    """Probabilities in the order of `rows`, nan where nothing is told; None if `of` has a row that is not among them.

    Rows of the same subject, time and label are told apart by their order.
    """
    again = pl.int_range(pl.len()).over(KEY).alias("again")
    told = rows.with_columns(again).join(
        of.with_columns(again), on=[*KEY, "again"], how="left", maintain_order="left"
    )
    scores = told[CHANCE].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return scores if int(np.isfinite(scores).sum()) == of.height else None


def _judged(
    one: Compared, name: str
) -> tuple[dict[str, Interval], np.ndarray, tuple[float, np.ndarray] | None]:
    """Figures and draws of AUROC on the rows that a contestant tells; and the baseline's AUROC and draws on just these."""
    told, baseline = one.told(name), one.baseline
    whole = bool(told.all())
    bootstrap = one.bootstrap if whole else PatientBootstrap(one.persons[told])
    figures, draws = classify(bootstrap, one.labels[told], one.scores[name][told])
    if name == baseline or baseline not in one.scores:
        return figures, draws["auroc"], None
    if whole:
        return figures, draws["auroc"], (one.figures[baseline]["auroc"].value, one.draws[baseline])
    theirs, their_draws = classify(bootstrap, one.labels[told], one.scores[baseline][told])
    return figures, draws["auroc"], (theirs["auroc"].value, their_draws["auroc"])


def sentence(task: str, one: Compared, challengers: Sequence[str] = ("*",)) -> str:
    """Whether a challenger (a contestant whose name is like one of these patterns) beats the baseline, with corrected p."""
    baseline = one.baseline
    known, patients = challenging(one, challengers), rarer_class(one.bootstrap.patient, one.labels)
    if not known or baseline not in one.figures:
        why = "no challenger tells it on the same rows"
        if not patients:
            why = "the held-out split has one class"
        elif baseline not in one.figures:
            why = f"{baseline} does not tell it"
        elif patients < FEWEST_PATIENTS:
            why = f"too few held-out patients of one class ({patients})"
        return f"{task}: {why}, so nothing is compared."
    value, rows, positive = one.figures[baseline]["auroc"].value, len(one.labels), int(one.labels.sum())
    small = f" Only {rows} rows, {positive} positive." if is_small(rows) else ""
    if better := [name for name in known if beats(one, name)]:
        said = "; ".join(
            f"{name} beats {baseline} (AUROC {value:.3f}) by {_said(one, name)}" for name in better
        )
        return f"{task}: {said}.{small}"
    worse = [name for name in known if one.minus[name].value < 0 and one.p[name] < SURE]
    also = f" Worse than it: {', '.join(sorted(worse))}." if worse else ""
    nearest = f"the nearest is {known[0]}, {_said(one, known[0])}"
    return f"{task}: no challenger beats {baseline} (AUROC {value:.3f}); {nearest}.{also}{small}"


def challenging(one: Compared, challengers: Sequence[str]) -> list[str]:
    """Challengers that are compared with the baseline, the one with the highest AUROC above it first."""
    known = [
        name for name, p in one.p.items() if not np.isnan(p) and any(fnmatch(name, c) for c in challengers)
    ]
    return sorted(known, key=lambda name: (-one.minus[name].value, name))


def beats(one: Compared, name: str) -> bool:
    return one.minus[name].value > 0 and one.p[name] < SURE


def _said(one: Compared, name: str) -> str:
    gain = one.minus[name]
    return f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}), corrected p {'' if one.p[name] < 0.001 else '= '}{shown_p(one.p[name])}"


def shown_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def is_small(rows: int) -> bool:
    return rows < FEWEST


def left_out(
    told: pl.DataFrame, one: Compared, task: str
) -> dict[str, tuple[Interval, Interval, np.ndarray]]:
    """Contestant to its AUROC on the rows that a model without their hospital told; what that costs, paired; and which of its
    rows no such model told (that of a hospital whose others have one class), bool [n]."""
    found = {}
    apart = told.filter((pl.col("part") == "left_out") & (pl.col("task") == task))
    for (name,), of in apart.partition_by("contestant", as_dict=True).items():
        scores = placed(of.sort(KEY), one.rows) if name in one.scores else None
        if scores is None:
            continue
        there = np.isfinite(scores) & one.told(name)
        bootstrap, labels = PatientBootstrap(one.persons[there]), one.labels[there]
        figures, draws = classify(bootstrap, labels, scores[there])
        whole, whole_draws = classify(bootstrap, labels, one.scores[name][there])
        value = figures["auroc"].value - whole["auroc"].value
        counts = int(there.sum()), bootstrap.n_patients
        cost = Interval(value, *bounds(draws["auroc"] - whole_draws["auroc"]), *counts)
        found[name] = figures["auroc"], cost, one.told(name) & ~there
    return dict(sorted(found.items()))


def by_shots(told: pl.DataFrame) -> pl.DataFrame:
    """One row a task, contestant, k and replicate: auroc, auprc, brier; k is -1 for the whole train split."""
    rows = []
    keys = ["task", "contestant", "shots", "replicate"]
    asked = told.filter(pl.col("part") != "left_out").with_columns(
        pl.col("shots").fill_null(-1), pl.col("replicate").fill_null(0)
    )
    for names, of in asked.partition_by(keys, as_dict=True).items():
        rows.append((*names, *points(of["boolean_value"].to_numpy(), of[CHANCE].cast(pl.Float64).to_numpy())))
    schema = {"task": pl.String, "contestant": pl.String, "k": pl.Int32, "replicate": pl.Int32}
    schema |= dict.fromkeys(("auroc", "auprc", "brier"), pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row").sort("task", "contestant", "k", "replicate")


def points(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float, float]:
    """auroc, auprc and brier, without intervals; nan where a class is missing."""
    once = np.ones((1, len(labels)), np.int64)
    found = Ranking(labels, scores, np.arange(len(labels))).figures(once, RANKED)
    return float(found["auroc"][0]), float(found["auprc"][0]), float(((scores - labels) ** 2).mean())


def leaderboard(shots: pl.DataFrame) -> pl.DataFrame:
    """The columns of EHRSHOT's results: labeling_function, sub_task, model, head, replicate, k, score, value.

    shots: of `by_shots`. The model and the head on it are told apart by the end of the contestant's name.
    """
    heads: Mapping[str, str] = {"_lightgbm": "gbm", "_logistic_regression": "lr_lbfgs"}
    head, model = pl.lit("own"), pl.col("contestant")
    for end, name in heads.items():
        head = pl.when(pl.col("contestant").str.ends_with(end)).then(pl.lit(name)).otherwise(head)
        model = model.str.strip_suffix(end)
    return (
        shots.unpivot(["auroc", "auprc", "brier"], index=["task", "contestant", "k", "replicate"], variable_name="score")
        .select(
            pl.col("task").str.split("/").list.first().alias("labeling_function"),
            pl.col("task").str.split("/").list.last().alias("sub_task"),
            model.alias("model"), head.alias("head"), "replicate", "k", "score", "value",
        )
        .sort("labeling_function", "sub_task", "model", "head", "k", "replicate", "score")
    )  # fmt: skip
