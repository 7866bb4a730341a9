"""Job: honest baselines for every task of the warehouse, on the splits and with the statistics that every model shares.

Reads harmonised/events, splits and labels/<task>; writes `<asset>/<version>/metrics.json`, a table, and its predictions in
the form of prediction/predictions.py (contestants plain_counts_lightgbm and so on). Rich counts stand against plain
counts, paired, with Holm's correction over the tasks, and hospital by hospital. Parameters: `tasks` (names; by default every
labels/<task> that is an input), `grid` (`ehrshot` or `small`), `grids` (another by task), `threads`, `few_shot` (`tasks`, `shots`, `replicates`,
`grid`) and `left_out` (tasks), of which prediction/protocol.py tells. A task whose label is a number has its errors in a table of
its own (prediction/numbers.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import duckdb
import numpy as np
import polars as pl

from orchestration import catalog
from ray_jobs.config import JobError
from ray_jobs.prediction import baselines, counts, numbers, predictions, protocol
from ray_jobs.prediction.comparison import points
from ray_jobs.prediction.labels import KEYS, parts, read, tasks_of
from ray_jobs.prediction.labels import amounts as amounts_of
from ray_jobs.runtime import Job, Markdown, main
from ray_jobs.statistics import (
    FEWEST_PATIENTS,
    PatientBootstrap,
    bounded,
    classify,
    holm,
    p_value,
    rarer_class,
    shown,
)

CHOSEN = "the better on tuning"
FEWEST = 30  # held-out labels below which a figure is marked


def run(job: Job) -> None:
    """Raises JobError if no task has a label."""
    started, key = time.monotonic(), job.config.outputs[0]
    labels = {name: frame for task in tasks_of(job) for name, frame in parts(task, job) if frame.height}
    amounts = {name: frame for task in tasks_of(job) for name, frame in amounts_of(task, job) if frame.height}
    if not labels and not amounts:
        raise JobError("no task has a label; materialise labels/* with at least one hospital")
    asked = pl.concat(f.select(KEYS) for f in (*labels.values(), *amounts.values()))
    rows = counts.prediction_rows(asked, read(job, "splits"))
    events = [catalog.fetched(url, job.scratch) for url in sorted(job.files("harmonised/events"))]
    results: dict[str, dict] = {}
    errors: dict[str, dict] = {}
    with duckdb.connect(config={"memory_limit": "2GB", "threads": job.threads}) as connection:
        made = counts.Counts(connection, counts.relation(events), rows)
        for kind in counts.KINDS:
            matrix = made.matrix(made.fit(kind))
            job.log.info(
                "%s counts: %d rows, %d columns, %.0f s", kind, *matrix.shape, time.monotonic() - started
            )
            for done, (name, frame) in enumerate(labels.items(), 1):
                found = judged(job, kind, matrix, frame.join(rows, on=KEYS, how="inner").sort("row"), name)
                results.setdefault(name, {}).update(found)
                job.log.info(
                    "%s counts: %s, %d of %d tasks, %.0f s",
                    kind,
                    name,
                    done,
                    len(labels),
                    time.monotonic() - started,
                )
            for name, frame in amounts.items():
                labelled = frame.join(rows, on=KEYS, how="inner").sort("row")
                mine = matrix[labelled["row"].to_numpy()]
                found = numbers.judged(kind, grid_of(job, name), mine, labelled, job.threads)
                errors.setdefault(name, {}).update(found)
    compare(results)
    content = {name: plain(result) for name, result in results.items()}
    (job.output(key) / "metrics.json").write_text(
        json.dumps(content | errors, indent=1, sort_keys=True), encoding="utf-8"
    )
    better = [r for r in results.values() if r.get("p_rich_over_plain") is not None]
    job.publish(
        {
            key: {
                "tasks": len(results) + len(errors),
                "held_out_labels": sum(r["labels"] for r in results.values()),
                "rich_better_than_plain": sum(r["rich_minus_plain"] > 0 for r in better),
                "compared": len(better),
                "rich_minus_plain_by_hospital": Markdown(gained(gains(results))),
                "seconds": round(time.monotonic() - started, 1),
                "table": Markdown(table(content)),
                **({"numbers": Markdown(numbers.table(errors))} if errors else {}),
            }
        }
    )


def grid_of(job: Job, task: str) -> str:
    """`grid`, or what `grids` says of this task (of its groups, by the name of the task)."""
    return str(job.params.get("grids", {}).get(task.split("/")[0]) or job.params.get("grid", "ehrshot"))


def judged(job: Job, kind: str, matrix, labelled: pl.DataFrame, task: str) -> dict[str, object]:
    """Every model of one task over one kind of counts: its predictions are written, its figures and draws are returned by
    '<kind> counts, <model>'."""
    truth, splits = labelled["label"].to_numpy() == 1, labelled["split"].to_numpy()
    mine, held = matrix[labelled["row"].to_numpy()], labelled.filter(pl.col("split") == "held_out")
    patients, hospitals = held["person"].to_numpy(), held["hospital"].to_numpy()
    found: dict[str, object] = {
        "labels": held.height,
        "positives": int(truth[splits == "held_out"].sum()),
        "train_labels": int((splits == "train").sum()),
    }
    for model in baselines.MODELS:
        try:
            fitted = baselines.fit(model, grid_of(job, task), mine, truth, splits, job.threads)
        except ValueError as error:
            found["not_fitted"] = str(error)
            continue
        if not held.height:
            found["not_fitted"] = "the held-out split is empty"
            continue
        figures, draws = classify(
            PatientBootstrap(patients), truth[splits == "held_out"], fitted.probabilities
        )
        name = f"{kind} counts, {model}"
        found[name] = {
            **{figure: interval.as_dict() for figure, interval in figures.items()},
            "chosen": dict(fitted.chosen),
            "tuning_auroc": None if np.isnan(fitted.tuning_auroc) else round(fitted.tuning_auroc, 4),
            "patients_of_the_rarer_class": rarer_class(patients, truth[splits == "held_out"]),
            "auroc_by_hospital": by_hospital(hospitals, truth[splits == "held_out"], fitted.probabilities),
            "draws": draws["auroc"],
        }
        said = predictions.told(held, fitted.probabilities)
        folder, name = job.output(job.config.outputs[0]), contestant(kind, model)
        predictions.write(folder, name, task, "all", said)
        predictions.write_tuning(folder, name, task, fitted.tuning_auroc)
        protocol.write_parts(folder, name, task, job.params, model, mine, labelled, job.threads)
    return found


def by_hospital(hospitals: np.ndarray, truth: np.ndarray, chances: np.ndarray) -> dict[str, float]:
    """AUROC of the rows of each hospital that has both classes among them; all [n]."""
    mine = {name: hospitals == name for name in np.unique(hospitals)}
    found = {name: points(truth[at], chances[at])[0] for name, at in mine.items()}
    return {name: round(auroc, 4) for name, auroc in found.items() if not np.isnan(auroc)}


def compare(results: Mapping[str, dict]) -> None:
    """Rich against plain counts, of LightGBM: the gain in AUROC, and its p, paired and corrected over all tasks; without a p where there are
    hardly any patients of one class."""
    raw = {}
    for name, result in results.items():
        rich, plain_counts = (result.get(f"{kind} counts, LightGBM") for kind in ("rich", "plain"))
        if rich and plain_counts and rich["auroc"]["value"] is not None:
            if rich["patients_of_the_rarer_class"] >= FEWEST_PATIENTS:
                raw[name] = p_value(rich["draws"], plain_counts["draws"])
            result["rich_minus_plain"] = round(rich["auroc"]["value"] - plain_counts["auroc"]["value"], 4)
    for name, p in holm(raw).items():
        results[name]["p_rich_over_plain"] = None if np.isnan(p) else round(p, 4)


def gains(results: Mapping[str, dict]) -> dict[tuple[str, str], list[float]]:
    """(hospital, model) to the AUROC of rich less that of plain counts, of every task in which both can be told; by each
    model, and by the one that tuning chose for either kind of counts."""
    found: dict[tuple[str, str], list[float]] = {}
    for result in results.values():
        fitted = {
            kind: {model: result.get(f"{kind} counts, {model}", {}) for model in baselines.MODELS}
            for kind in counts.KINDS
        }
        for of in fitted.values():
            of[CHOSEN] = max(of.values(), key=lambda figures: figures.get("tuning_auroc") or 0)
        for model in (*baselines.MODELS, CHOSEN):
            rich, plain_counts = (
                fitted[kind][model].get("auroc_by_hospital", {}) for kind in ("rich", "plain")
            )
            for hospital in sorted(set(rich) & set(plain_counts)):
                found.setdefault((hospital, model), []).append(rich[hospital] - plain_counts[hospital])
    return dict(sorted(found.items()))


def gained(found: Mapping[tuple[str, str], list[float]]) -> str:
    """Markdown: in how many tasks of a hospital rich counts have the higher AUROC than plain ones, and by how much."""
    lines = ["| hospital | model | tasks | rich higher | plain higher | mean difference |", "|---" * 6 + "|"]
    for (hospital, model), of in found.items():
        higher, lower = sum(d > 0 for d in of), sum(d < 0 for d in of)
        lines.append(f"| {hospital} | {model} | {len(of)} | {higher} | {lower} | {sum(of) / len(of):+.3f} |")
    return "\n".join(lines)


def plain(result: Mapping[str, object]) -> dict[str, object]:
    """Without the draws."""
    return {
        k: {name: value for name, value in v.items() if name != "draws"} if isinstance(v, dict) else v
        for k, v in result.items()
    }


def contestant(kind: str, model: str) -> str:
    return f"{kind}_counts_{model.lower().replace(' ', '_')}"


def table(content: Mapping[str, Mapping]) -> str:
    """Markdown: one line a task and model on the held-out split, with 95 % intervals of the patient bootstrap."""
    lines = [
        "| task | n (positive) | model | AUROC (95 %) | AUPRC | min(se, +P) | Brier | calibration error | p, rich over plain |",
        "|---" * 9 + "|",
    ]
    for name, result in sorted(content.items()):
        small = " (n < 30)" if result["labels"] < FEWEST else ""
        for model, figures in result.items():
            if not isinstance(figures, Mapping):
                continue
            cells = [shown(figures[f]) for f in ("auprc", "min_se_ppv", "brier", "calibration_error")]
            p = result.get("p_rich_over_plain") if model == "rich counts, LightGBM" else None
            lines.append(
                f"| {name} | {result['labels']} ({result['positives']}){small} | {model} | {bounded(figures['auroc'])} | "
                f"{' | '.join(cells)} | {'' if p is None else p} |"
            )
        if why := result.get("not_fitted"):
            lines.append(
                f"| {name} | {result['labels']} ({result['positives']}){small} | not fitted: {why} |||||||"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main(run)
