"""Job: one task by cross-validation over patients, for a set too small to be judged on one held-out tenth.

A patient's fold is their hash modulo the number of folds, so that it stays as data grows. Each fold is foreseen by models
that saw the others only; the fold after it is their tuning split. All figures are of the pooled predictions, with intervals
by the patient bootstrap, and paired with one model (`against`), with Holm's correction. Writes metrics.json, a table, and
predictions.parquet, the columns of prediction/predictions.py with contestant and fold. Parameters: `task`, `folds`,
`hospitals` (all by default), `models` (names of `CONTESTANTS`, by default all; the champion is left out, as it is and
fine-tuned, and that is said, where none stands or where it learned from one of the hospitals), `against`, `grid`, `seeds`
(how many are averaged), `threads`, those of predict_from_text.py for records as text, and of prediction/fine_tuned.py.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence

import duckdb
import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from orchestration import catalog
from ray_jobs.config import JobError
from ray_jobs.prediction import (
    baselines,
    counts,
    ensemble,
    fine_tuned,
    language,
    predictions,
    scores,
    summaries,
)
from ray_jobs.prediction.comparison import shown_p
from ray_jobs.prediction.labels import KEYS, people, read
from ray_jobs.runtime import Job, Markdown, main
from ray_jobs.statistics import (
    FEWEST_PATIENTS,
    FIGURES,
    PatientBootstrap,
    bounded,
    classify,
    holm,
    p_value,
    rarer_class,
)

COUNTED = {f"{kind} counts, {model}": (kind, model) for kind in counts.KINDS for model in baselines.MODELS}
SUMMARISED = {f"summaries, {model}": model for model in ensemble.MODELS}
SCORED = {"SOFA": "sofa"}
READ = {f"records as text, {form}": form for form in ("list", "markdown", "weighed")}
TUNED = "Llemr, fine-tuned"
ASKED = {"Llemr, zero-shot": language.zero_shot, TUNED: language.tuned}
CONTESTANTS = (*COUNTED, *SUMMARISED, *SCORED, *READ, *ASKED)
AGAINST = "summaries, LightGBM"


def run(job: Job) -> None:
    """Labels of one class only, or none, are no fault: it is said, and nothing is published."""
    started, key, task = time.monotonic(), job.config.outputs[0], job.params["task"]
    labels = read(job, f"labels/{task}")
    if wanted := job.params.get("hospitals"):
        labels = labels.filter(pl.col("hospital").is_in(wanted))
    rows = prediction_rows(labels, read(job, "splits"), int(job.params.get("folds", 5)))
    truth = rows["label"].to_numpy() == 1
    if len(np.unique(truth)) < 2:
        why = f"labels/{task} has {rows.height} labels of fewer than two classes; there is nothing to tell apart"
        job.log.warning("%s", why)
        job.stands(key, {"why": why, "labels": rows.height})
        return
    named = list(job.params.get("models", CONTESTANTS))
    why = language.why_not_asked(job, rows) if set(named) & set(ASKED) else None
    absent = {name: why for name in named if why and name in ASKED}
    said, there = {}, [name for name in named if name not in absent]
    for name, predict in contestants(job, rows, truth, there).items():
        try:
            said[name] = predict()
        except ValueError as error:  # a fold of one class, or nothing to learn from
            absent[name] = str(error)
        job.log.info("%s: %.0f s", name, time.monotonic() - started)
    for name, why in absent.items():
        job.log.warning("%s is left out: %s", name, why)
    if not said:
        job.stands(key, {"why": "; ".join(absent.values()), "labels": rows.height})
        return
    results = figures(rows, truth, said, job.params.get("against", AGAINST))
    counted = {"labels": rows.height, "positives": int(truth.sum())}
    content = {"task": task, **counted, "models": results, "left_out": absent}
    (job.output(key) / "metrics.json").write_text(
        json.dumps(content, indent=1, sort_keys=True), encoding="utf-8"
    )
    foreseen(rows, said).write_parquet(job.output(key) / "predictions.parquet")
    best = max(results, key=lambda name: results[name]["auroc"]["value"])
    metadata = {
        **counted,
        "best": best,
        "auroc": results[best]["auroc"]["value"],
        "left_out": "; ".join(f"{name}: {why}" for name, why in absent.items()) or "none",
    }
    seconds = round(time.monotonic() - started, 1)
    job.publish({key: {**metadata, "seconds": seconds, "table": Markdown(table(content))}})


def prediction_rows(labels: pl.DataFrame, splits: pl.DataFrame, folds: int) -> pl.DataFrame:
    """Labels in the order of their keys, numbered as `row`, each with its `person`, and that one's `fold`."""
    names = splits.select("hospital", "patient_id", "person_group", "person_id")
    known = names.join(people(splits).drop("split"), on=["hospital", "patient_id"])
    rows = labels.join(known, on=["hospital", "patient_id"], how="inner").sort(KEYS).with_row_index("row")
    persons = zip(rows["person_group"], rows["person_id"], strict=True)
    return rows.with_columns(pl.Series("fold", [fold_of(group, person, folds) for group, person in persons]))


def fold_of(person_group: str, person_id: str, folds: int) -> int:
    """By the number that also decides a person's split."""
    digest = hashlib.md5(f"{person_group}\x1f{person_id}".encode()).hexdigest()
    return int(digest[:8], 16) % folds


def roles(fold: np.ndarray, held_out: int) -> np.ndarray:
    """train, tuning or held_out of each row where this fold is held out."""
    tuning = (held_out + 1) % (fold.max() + 1)
    return np.where(fold == held_out, "held_out", np.where(fold == tuning, "tuning", "train"))


def contestants(
    job: Job, rows: pl.DataFrame, truth: np.ndarray, named: list[str]
) -> dict[str, Callable[[], np.ndarray]]:
    """Name to what gives its probabilities, float64 [rows]. Raises JobError for a name that there is none of."""
    if unknown := sorted(set(named) - set(CONTESTANTS)):
        raise JobError(f"params.models: there is no {unknown[0]!r}; write one of {', '.join(CONTESTANTS)}")
    if TUNED in named:
        fine_tuned.recipe_of(job)  # says what is missing before anything is computed
    fold, grid, seeds = (
        rows["fold"].to_numpy(),
        job.params.get("grid", "small"),
        int(job.params.get("seeds", 5)),
    )
    made: dict[str, Callable[[], np.ndarray]] = {}
    if any(name in COUNTED for name in named):
        by_kind = counted(job, rows, sorted({COUNTED[name][0] for name in named if name in COUNTED}))
        for name in filter(COUNTED.get, named):
            kind, model = COUNTED[name]
            made[name] = lambda kind=kind, model=model: by_fold(
                fold,
                lambda k, split: (
                    baselines.fit(model, grid, by_kind[kind][k], truth, split, job.threads).probabilities
                ),
            )
    if any(name in SUMMARISED for name in named):
        table, columns = summaries.matrix(
            read(job, "features/icu_stays"), read(job, "features/icu_summary"), rows
        )
        folds = ensemble.Folds(table, columns, truth, seeds, job.threads)
        for name in filter(SUMMARISED.get, named):

            def summarised(model: str = SUMMARISED[name]) -> np.ndarray:
                found = by_fold(fold, lambda k, split: folds.foreseen(model, k, split))
                job.log.info("%s: shares by fold %s", model, folds.shares[model])
                return found

            made[name] = summarised
    for name in filter(SCORED.get, named):
        points = scores.points_known(read(job, "features/icu_scores"), SCORED[name], rows)

        def scored(points: np.ndarray | None = points) -> np.ndarray:
            if points is None:
                raise ValueError("nobody has points by the time of prediction")
            return by_fold(
                fold,
                lambda k, split: (
                    baselines.fit(
                        "logistic regression", grid, points[:, None], truth, split, job.threads
                    ).probabilities
                ),
            )

        made[name] = scored
    split_of = {int(k): roles(fold, k) for k in np.unique(fold)}
    for name in filter(READ.get, named):

        def read_as_text(form: str = READ[name]) -> np.ndarray:
            vectors = language.vectors(job, rows, split_of, form)
            return by_fold(
                fold,
                lambda k, split: (
                    baselines.fit(
                        "logistic regression", grid, vectors[k].astype(np.float32), truth, split, job.threads
                    ).probabilities
                ),
            )

        made[name] = read_as_text
    for name in filter(ASKED.get, named):

        def answered(odds_of: Callable = ASKED[name]) -> np.ndarray:
            odds = odds_of(job, rows, split_of)
            return by_fold(fold, lambda k, split: language.calibrated(odds[k], rows, truth, split))

        made[name] = answered
    return {name: made[name] for name in named}


def by_fold(fold: np.ndarray, predict: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
    """Each fold's probabilities by a model that has not seen it; `predict` is given the fold and every row's role."""
    found = np.full(len(fold), np.nan)
    for k in np.unique(fold):
        split = roles(fold, k)
        found[fold == k] = predict(int(k), split)
    return found


def counted(job: Job, rows: pl.DataFrame, kinds: Sequence[str]) -> dict[str, dict[int, csr_matrix]]:
    """Kind of counts to fold to matrix, its columns and deciles fitted on the fold's train rows."""
    events = [catalog.fetched(url, job.scratch) for url in sorted(job.files("harmonised/events"))]
    fold, matrices = rows["fold"].to_numpy(), {kind: {} for kind in kinds}
    asked = rows.select("row", *KEYS)
    with duckdb.connect(config={"memory_limit": "2GB", "threads": job.threads}) as connection:
        for k in np.unique(fold):
            with_roles = asked.with_columns(pl.Series("split", roles(fold, k)))
            made = counts.Counts(connection, counts.relation(events), with_roles)
            for kind in kinds:
                matrices[kind][int(k)] = made.matrix(made.fit(kind))
    return matrices


def figures(
    rows: pl.DataFrame, truth: np.ndarray, said: Mapping[str, np.ndarray], against: str
) -> dict[str, dict]:
    """Name to its figures with intervals, and its p against the model of that name, paired and corrected."""
    bootstrap = PatientBootstrap(rows["person"].to_numpy())
    found, draws = {}, {}
    for name, probabilities in said.items():
        of, draws[name] = classify(bootstrap, truth, probabilities)
        found[name] = {figure: interval.as_dict() for figure, interval in of.items()}
    testable = rarer_class(bootstrap.patient, truth) >= FEWEST_PATIENTS
    raw = {
        name: p_value(draws[against]["auroc"], d["auroc"])
        for name, d in draws.items()
        if against in draws and name != against and testable
    }
    for name, p in holm(raw).items():
        found[name][f"p against {against}"] = round(p, 4)
    return found


def foreseen(rows: pl.DataFrame, said: Mapping[str, np.ndarray]) -> pl.DataFrame:
    """What every contestant says of every row, in MEDS-evaluation's columns, with contestant and fold."""
    return pl.concat(
        predictions.told(rows, p).with_columns(pl.lit(name).alias("contestant"), rows["fold"])
        for name, p in said.items()
    ).sort("contestant", "subject_id", "prediction_time")


def table(content: Mapping) -> str:
    """Markdown: one line a model, with 95 % intervals of the patient bootstrap."""
    head = ["model", *FIGURES, "p, paired, corrected"]
    lines = [
        f"**{content['task']}**: {content['labels']} labels, {content['positives']} positive",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for name, found in content["models"].items():
        cells = [bounded(found[f]) for f in FIGURES]
        p = next((shown_p(v) for k, v in found.items() if k.startswith("p against")), "")
        lines.append(f"| {name} | {' | '.join(cells)} | {p} |")
    lines += [f"\n{name} is left out: {why}." for name, why in content["left_out"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main(run)
