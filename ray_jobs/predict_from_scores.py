"""Job: clinical scores as contestants: what points alone foresee, beside the models.

A label's points are those of its visit in the newest row known by the prediction time; where nothing is known they are 0.
A logistic regression on the points alone, learned on train, makes them a probability and changes no ranking but its
direction (a low triage acuity is a high risk). Writes predictions in the form of prediction/predictions.py, a contestant a
score (charlson_hierarchy) or a score and variant (news_as_published). Parameters: `scores` (asset to its columns of
points), `tasks` (every labels/<task> that is an input by default).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import polars as pl

from ray_jobs.prediction import baselines, predictions
from ray_jobs.prediction.labels import KEYS, parts, read, tasks_of
from ray_jobs.prediction.scores import points_known
from ray_jobs.runtime import Job, main


def run(job: Job) -> None:
    """A task in which no visit has a score, or whose train split has one class, is counted and passed over."""
    key, splits = job.config.outputs[0], read(job, "splits").select("hospital", "patient_id", "split")
    written, passed_over = 0, 0
    for task in tasks_of(job):
        for name, labels in parts(task, job):
            labelled = labels.join(splits, on=["hospital", "patient_id"], how="inner").sort(KEYS)
            for contestant, points in points_of(job, labelled):
                said = told(points, labelled)
                passed_over += said is None
                if said is not None:
                    predictions.write(job.output(key), contestant, name, "all", said)
                    written += 1
    counted = {"predictions": written, "passed_over": passed_over}
    (job.output(key) / "metrics.json").write_text(json.dumps(counted), encoding="utf-8")
    job.publish({key: counted})


def points_of(job: Job, labelled: pl.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Contestant and its points, float64 [labels], of every score that any of these visits has by its prediction."""
    for asset, columns in job.params["scores"].items():
        scores = read(job, asset)
        variants = sorted(scores["variant"].unique()) if "variant" in scores.columns else [""]
        for variant in variants:
            of = scores.filter(pl.col("variant") == variant) if variant else scores
            for column in columns:
                if (known := points_known(of, column, labelled)) is not None:
                    yield "_".join(filter(None, [column, variant])), known


def told(points: np.ndarray, labelled: pl.DataFrame) -> pl.DataFrame | None:
    """Predictions of the held-out rows; None if there are none, or if the train split has one class."""
    truth, splits = labelled["label"].to_numpy() == 1, labelled["split"].to_numpy()
    held = labelled.filter(pl.col("split") == "held_out")
    try:
        fitted = baselines.fit("logistic regression", "small", points[:, None], truth, splits)
    except ValueError:
        return None
    return predictions.told(held, fitted.probabilities) if held.height else None


if __name__ == "__main__":
    main(run)
