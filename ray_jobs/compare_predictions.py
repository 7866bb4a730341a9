"""Job: one report of all contestants, from what they published in the form of prediction/predictions.py and nothing else.

Reads every evaluation/* input's predictions, and splits and harmonised/events for who the patients are; writes report.md (a
sentence and a table a task), curves.md (ROC, precision-recall, calibration, few labels), groups.md (hospital, sex, age, year),
metrics.json and leaderboard.csv (EHRSHOT's form; k = -1 is the whole train split). Parameters: `baseline`, the contestant that
the others are measured by, or a list, of which each task takes the one with the highest AUROC on tuning; `challengers`, patterns of the names of those whom the sentences are about (all by default).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from ray_jobs.config import JobError
from ray_jobs.prediction import comparison, curves, predictions
from ray_jobs.prediction import groups as by_group
from ray_jobs.prediction.comparison import Compared
from ray_jobs.prediction.labels import people, read
from ray_jobs.runtime import Job, Markdown, main
from ray_jobs.statistics import FEWEST_PATIENTS, FIGURES, bounded

BASELINES = ("rich_counts_lightgbm", "rich_counts_logistic_regression")
WHOLE = "Trained on the whole train split"


def run(job: Job) -> None:
    """Raises JobError if nobody tells anything, or the baseline is no contestant."""
    started, key = time.monotonic(), job.config.outputs[0]
    sources = sorted(k for k in job.config.inputs if k.startswith("evaluation/"))
    try:
        told = predictions.read(job.path(source) for source in sources)
    except ValueError as error:
        raise JobError(f"{key}: {error}; mend deps in its defs.yaml") from None
    given, names = job.params.get("baseline", BASELINES), sorted(told["contestant"].unique())
    baselines = [given] if isinstance(given, str) else list(given)
    if unknown := [name for name in baselines if name not in names]:
        raise JobError(f"params.baseline: {unknown[0]}; write one of {', '.join(names)}")
    splits, tuning = read(job, "splits"), predictions.read_tuning(job.path(source) for source in sources)
    who = _numbered(people(splits)).select("subject_id", "hospital", "person")
    tasks, shots = comparison.compare(told, baselines, tuning, who), comparison.by_shots(told)
    silent = [source for source in sources if not (job.path(source) / predictions.FOLDER).is_dir()]
    for source in silent:
        job.log.warning("%s tells no predictions", source)
    job.log.info("%d tasks of %d contestants, %.0f s", len(tasks), len(names), time.monotonic() - started)
    folder = job.output(key)
    comparison.leaderboard(shots).write_csv(folder / "leaderboard.csv")
    metrics = {task: as_json(one) for task, one in tasks.items()}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True), encoding="utf-8")
    drawn = [
        curves.of_task(t, one, shots.filter(pl.col("task") == t)) for t, one in tasks.items() if "/" not in t
    ]
    challengers = list(job.params.get("challengers") or ["*"])
    beaten = sum(
        any(comparison.beats(one, n) for n in comparison.challenging(one, challengers))
        for one in tasks.values()
    )
    job.publish(
        {
            key: {
                "tasks": len(tasks),
                "contestants": len(names),
                "assets_without_predictions": ", ".join(silent) or "none",
                "tasks_in_which_the_baseline_is_beaten": beaten,
                "seconds": round(time.monotonic() - started, 1),
                "report": Markdown(report(tasks, told, baselines, challengers, who)),
                "groups": Markdown(groups(job, tasks, who)),
                "curves": Markdown("\n\n".join(drawn)),
            }
        }
    )


def report(
    tasks: Mapping[str, Compared],
    told: pl.DataFrame,
    baselines: Sequence[str],
    challengers: Sequence[str],
    who: pl.DataFrame,
) -> str:
    """who: subject_id, hospital and person."""
    chosen = f"task by task that of {', '.join(baselines)} with the highest AUROC on tuning"
    compared = sum(len(one.p) for one in tasks.values())
    lines = [
        "# Who foresees what",
        "",
        "Held-out patients. Intervals are 95 %, of 1,000 bootstraps of persons; differences to the baseline "
        f"({chosen if len(baselines) > 1 else baselines[0]}) are paired, and p is corrected by Holm over all {compared} comparisons of this report, "
        f"of tasks with at least {FEWEST_PATIENTS} patients of either class.",
        "",
        *(f"- {comparison.sentence(task, one, challengers)}" for task, one in tasks.items()),
    ]
    for task, one in tasks.items():
        rows, positive = len(one.labels), int(one.labels.sum())
        small = ", n < 30" if comparison.is_small(rows) else ""
        heads = ["AUROC", "AUPRC", "Brier", "calibration error", "AUROC less the baseline's", "p"]
        lines += [
            "",
            f"## {task}",
            "",
            f"n = {rows}, {positive} positive, {one.bootstrap.n_patients} persons{small}. {WHOLE}:",
        ]
        lines += ["", f"| contestant | {' | '.join(heads)} |", "|---" * 7 + "|"]
        for name, figures in sorted(one.figures.items(), key=lambda f: -np.nan_to_num(f[1]["auroc"].value)):
            cells = [bounded(figures[f].as_dict()) for f in ("auroc", "auprc", "brier", "calibration_error")]
            p = one.p.get(name, np.nan)
            cells += [
                bounded(one.minus[name].as_dict()) if name in one.minus else "",
                "" if np.isnan(p) else comparison.shown_p(p),
            ]
            n, shown = figures["auroc"].questions, f"{name}, the baseline" if name == one.baseline else name
            lines.append(f"| {shown if n == rows else f'{shown} (n = {n})'} | {' | '.join(cells)} |")
        lines += [f"\n{name} tells {n} other rows and is not compared." for name, n in one.elsewhere.items()]
        if apart := comparison.left_out(told, one, task):
            lines += [
                "",
                "Each hospital by a model of the other hospitals:",
                "",
                "| contestant | AUROC | change |",
                "|---|---|---|",
            ]
            for name, (away, cost, missing) in apart.items():
                silent = one.rows.filter(missing).join(who, on="subject_id")["hospital"].unique().sort()
                shown = f"{name} (not told: {', '.join(silent)})" if len(silent) else name
                lines.append(f"| {shown} | {bounded(away.as_dict())} | {bounded(cost.as_dict())} |")
            if any(missing.any() for *_, missing in apart.values()):
                lines += ["", "A hospital is not told where the train split of the others has one class."]
    return "\n".join(lines)


def groups(job: Job, tasks: Mapping[str, Compared], who: pl.DataFrame) -> str:
    """AUROC by hospital, sex, age and year of every task that has no groups of its own. who: subject_id and hospital."""
    admissions = _numbered(read(job, "harmonised/events").filter(pl.col("kind") == "admission"))
    lines = [
        "# By hospital, sex, age and year",
        "",
        "AUROC (95 %); below 30 rows a figure says little, so n < 30 is marked.",
    ]
    for task, one in tasks.items():
        if "/" in task:
            continue
        known = by_group.people_of(one.rows, who.select("subject_id", "hospital"), admissions)
        lines += [
            "",
            f"## {task}",
            "",
            f"| group | n | positive | {' | '.join(one.scores)} |",
            "|---" * (3 + len(one.scores)) + "|",
        ]
        for name, group, mask in by_group.groups(one, known):
            n = int(mask.sum())
            shown = f"{n} (n < 30)" if comparison.is_small(n) else str(n)
            cells = [bounded(by_group.auroc(one, contestant, mask).as_dict()) for contestant in one.scores]
            lines.append(
                f"| {name}: {group} | {shown} | {int(one.labels[mask].sum())} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def _numbered(frame: pl.DataFrame) -> pl.DataFrame:
    patients = frame.select("hospital", "patient_id").unique()
    numbers = pl.Series("subject_id", [predictions.subject_id(*p) for p in patients.iter_rows()], pl.Int64)
    return frame.join(patients.with_columns(numbers), on=["hospital", "patient_id"])


def as_json(one: Compared) -> dict[str, object]:
    contestants = {
        name: {**{f: figures[f].as_dict() for f in FIGURES}}
        | ({"auroc_minus_baseline": one.minus[name].as_dict()} if name in one.minus else {})
        | ({"corrected_p": None if np.isnan(one.p[name]) else round(one.p[name], 4)} if name in one.p else {})
        for name, figures in one.figures.items()
    }
    return {
        "rows": len(one.labels),
        "baseline": one.baseline,
        "positives": int(one.labels.sum()),
        "contestants": contestants,
        "elsewhere": one.elsewhere,
    }


if __name__ == "__main__":
    main(run)
