"""Job: a frozen language model reads each record as text, and a logistic regression on its vectors foresees each task.

Reads harmonised/events, splits and labels/<task>; writes its predictions in the form of prediction/predictions.py,
metrics.json, worth.json (what the budget was spent by, serialiser `weighed`) and table.md. Vectors are kept in the data root
by model, serialiser and text (`records/store.py`): a text that was ever encoded is not encoded again, and a run that was
broken off goes on.

Parameters: `encoder`, `pooling`, `instruction`, `context`, `precision`, `tokens_per_batch` (see records/encoder.py),
`serialiser` (`list`, `markdown` or `weighed`), `budget` (tokens of a record), `shared_prefix` (causal models: one reading of
a record for all tasks), `store` (URL of another folder for vectors), `tasks`, `grid`, `few_shot`, `left_out` (see predict.py;
not with `weighed`, whose text is chosen by the labels of the whole train split), `contestant` (a name), `threads`,
`cpus_per_worker`, `gpus_per_worker`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from orchestration import catalog, dbt
from orchestration.tasks import definition
from ray_jobs.config import JobError
from ray_jobs.llemr.data import dictionary
from ray_jobs.prediction import baselines, predictions, protocol
from ray_jobs.prediction.counts import prediction_rows
from ray_jobs.prediction.labels import KEYS, parts, read, tasks_of
from ray_jobs.records import worth
from ray_jobs.records.embed import vectors_of
from ray_jobs.records.encoder import Encoder, Settings
from ray_jobs.records.listing import List
from ray_jobs.records.markdown import Markdown
from ray_jobs.records.walk import Costs, Serialiser, serialise
from ray_jobs.records.weighed import Weighed
from ray_jobs.runtime import Job, main
from ray_jobs.runtime import Markdown as Shown
from ray_jobs.statistics import PatientBootstrap, bounded, classify

CONCEPTS = str(catalog.REPOSITORY / "dbt_project" / "seeds" / "concepts.csv")
HEAD = "logistic regression"


def run(job: Job) -> None:
    """Raises JobError if no task has a label, or a parameter is not one of its choices."""
    started, key = time.monotonic(), job.config.outputs[0]
    check_parts(job)
    tasks = {task: dict(parts(task, job)) for task in tasks_of(job)}
    tasks = {task: {n: f for n, f in of.items() if f.height} for task, of in tasks.items()}
    tasks = {task: of for task, of in tasks.items() if of}
    if not tasks:
        raise JobError("no task has a label; materialise labels/* with at least one hospital")
    splits, events = read(job, "splits"), read(job, "harmonised/events")
    encoder = Encoder(settings_of(job), threads=job.threads)
    instructions = questions(tasks)
    encoder.check_budget(budget_of(job), list(instructions.values()))
    serialiser, bits = serialiser_of(job, encoder), {}
    asked, texts = {}, {}
    for task, of in tasks.items():
        rows = prediction_rows(pl.concat(f.select(KEYS) for f in of.values()), splits)
        if serialiser.name == "weighed":
            bits[task] = worth_of(serialiser, events, of, rows)
        told = serialise(replace(serialiser, worth=bits[task]) if task in bits else serialiser, events, rows)
        asked[task], texts[task] = rows, [(record, instructions[task]) for record in told]
    job.log.info("%d records as text, %.0f s", sum(map(len, texts.values())), time.monotonic() - started)
    vectors, counted = vectors_of(job, encoder, serialiser.name, texts)
    job.log.info("%d texts encoded, %.0f s", counted["texts_encoded"], time.monotonic() - started)
    figures = {}
    for task, of in tasks.items():
        for name, frame in of.items():
            labelled = frame.join(asked[task], on=KEYS, how="inner").sort("row")
            features = vectors[task][labelled["row"].to_numpy()].astype(np.float32)
            figures[name] = foreseen(job, name, features, labelled)
    content = json.dumps(figures, indent=1, sort_keys=True)
    (job.output(key) / "metrics.json").write_text(content, encoding="utf-8")
    if bits:
        content = json.dumps(bits, indent=1, sort_keys=True)
        (job.output(key) / "worth.json").write_text(content, encoding="utf-8")
    metadata = {"tasks": len(figures), **counted, "seconds": round(time.monotonic() - started, 1)}
    job.publish({key: {**metadata, "table": Shown(table(figures))}})


def check_parts(job: Job) -> None:
    """Raises JobError if fewer labels, or another hospital's, are asked of a text that all train labels have chosen."""
    asked = [part for part in ("few_shot", "left_out") if job.params.get(part)]
    if asked and job.params.get("serialiser", "weighed") == "weighed":
        raise JobError(
            f"{job.config.outputs[0]}: params.{asked[0]}: the text of `weighed` is chosen by the labels of the whole train "
            f"split; leave {' and '.join(asked)} out, or write serialiser: list or markdown"
        )


def settings_of(job: Job) -> Settings:
    names = {"pooling", "instruction", "context", "precision", "tokens_per_batch"}
    given = {name: job.params[name] for name in names & set(job.params)}
    return Settings(model=str(job.params.get("encoder", "minilm")), **given)


def budget_of(job: Job) -> int:
    return int(job.params.get("budget", 256))


def serialiser_of(job: Job, encoder: Encoder, name: str | None = None) -> Serialiser:
    """name: list, markdown or weighed, by default the parameter. Raises JobError if there is no such serialiser."""
    costs, concepts = Costs(encoder.tokens), dictionary(CONCEPTS)
    name = name or str(job.params.get("serialiser", "weighed"))
    if name == "list":
        return List(costs, {concept: digits for concept, (digits, *_) in concepts.items()}, budget_of(job))
    made = {"markdown": Markdown, "weighed": Weighed}.get(name)
    if made is None:
        raise JobError(f"params.serialiser: {name!r}; write one of list, markdown, weighed")
    return made(costs, concepts, budget_of(job))


def questions(tasks: Mapping[str, object]) -> dict[str, str]:
    """What is asked of each task: its description."""
    known = definition.read(dbt.PROJECT)
    return {task: known[task].description if task in known else task.replace("_", " ") for task in tasks}


def worth_of(
    serialiser: Weighed, events: pl.DataFrame, of: Mapping[str, pl.DataFrame], rows: pl.DataFrame
) -> dict[str, float]:
    """Bits by thing on the train split; of a task with several labels, their mean."""
    train = rows.filter(pl.col("split") == "train")
    fitted = [worth.fit(serialiser, events, f.join(train, on=KEYS, how="semi")) for f in of.values()]
    things = sorted({thing for bits in fitted for thing in bits})
    return {t: round(sum(bits.get(t, 0.0) for bits in fitted) / len(fitted), 6) for t in things}


def foreseen(job: Job, task: str, features: np.ndarray, labelled: pl.DataFrame) -> dict[str, object]:
    """Fit the head of one task and write what it foresees; AUROC on the held-out split, or why there is none.

    features: [n, dimensions]; labelled: hospital, patient_id, prediction_at, label, split, person, [n].
    """
    key, threads = job.config.outputs[0], job.threads
    truth, splits = labelled["label"].to_numpy() == 1, labelled["split"].to_numpy()
    held = labelled.filter(pl.col("split") == "held_out")
    if not held.height:
        return {"not_fitted": "the held-out split is empty"}
    try:
        fitted = baselines.fit(HEAD, str(job.params.get("grid", "ehrshot")), features, truth, splits, threads)
    except ValueError as error:
        return {"not_fitted": str(error)}
    name = str(job.params.get("contestant", key.split("/")[-1])) + "_" + HEAD.replace(" ", "_")
    predictions.write(job.output(key), name, task, "all", predictions.told(held, fitted.probabilities))
    protocol.write_parts(job.output(key), name, task, job.params, HEAD, features, labelled, threads)
    found, _ = classify(
        PatientBootstrap(held["person"].to_numpy()), truth[splits == "held_out"], fitted.probabilities
    )
    return {"labels": held.height, "positives": int(held["label"].sum()), **found["auroc"].as_dict()}


def table(figures: Mapping[str, Mapping[str, object]]) -> str:
    lines = ["| task | n (positive) | AUROC (95 %) |", "|---|---|---|"]
    for task, f in sorted(figures.items()):
        if why := f.get("not_fitted"):
            lines.append(f"| {task} |  | not fitted: {why} |")
            continue
        lines.append(f"| {task} | {f['labels']} ({f['positives']}) | {bounded(f)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(run)
