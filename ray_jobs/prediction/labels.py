"""Labels of the warehouse as the models read them: tasks, their binary parts, and tables of the catalog as frames.

Of a task that is predicted every hour, every model reads the same few hours of a visit, drawn by a hash: its rows are much alike,
and there would be millions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache

import polars as pl

from orchestration import catalog, dbt
from orchestration.tasks import definition
from ray_jobs.runtime import Job

KEYS = ["hospital", "patient_id", "prediction_at"]
HOURLY = "icu_hours"  # the cohort of a prediction an hour
HOURS = 8  # of a visit, of such a task


def read(job: Job, key: str) -> pl.DataFrame:
    """All rows of an input of the job that is a table."""
    files = [catalog.fetched(url, job.scratch) for url in sorted(job.files(key))]
    return pl.concat(pl.read_parquet(file, hive_partitioning=False) for file in files)


def people(splits: pl.DataFrame) -> pl.DataFrame:
    """hospital, patient_id, split and person: one name for whoever is a patient of several hospitals, as splits are made."""
    person = pl.concat_str("person_group", "person_id", separator=chr(31)).alias("person")
    return splits.select("hospital", "patient_id", "split", person)


def tasks_of(job: Job) -> list[str]:
    """Names of the tasks that are asked for, each an input of the job: `tasks`, or all."""
    given = {k.removeprefix("labels/") for k in job.config.inputs if k.startswith("labels/")}
    return list(job.params.get("tasks") or sorted(given))


def rows_of(task: str, job: Job) -> pl.DataFrame:
    """labels/<task>; of a task with a prediction an hour HOURS of each visit, the same ones for every model."""
    frame = read(job, f"labels/{task}")
    return drawn(frame) if task in hourly() else frame


@cache
def hourly() -> frozenset[str]:
    """The tasks with a prediction an hour."""
    return frozenset(name for name, task in definition.read(dbt.PROJECT).items() if task.cohort == HOURLY)


def drawn(frame: pl.DataFrame, hours: int = HOURS) -> pl.DataFrame:
    """At most so many rows of a visit, by a hash of the row's keys, in their order; they stay as data grows."""
    keys = frame.select("hospital", "patient_id", "visit_id", "prediction_at").rows()
    order = [hashlib.sha256(chr(31).join(map(str, key)).encode()).hexdigest() for key in keys]
    place = pl.col("order").rank("ordinal").over("hospital", "visit_id")
    return frame.with_columns(pl.Series("order", order, pl.String)).filter(place <= hours).drop("order")


def amounts(task: str, job: Job) -> Iterator[tuple[str, pl.DataFrame]]:
    """Labels of a task by name where they are numbers to be foreseen, as `parts` gives those of classes."""
    frame = rows_of(task, job)
    if frame["label"].dtype.is_float():
        yield task, frame


def parts(task: str, job: Job) -> Iterator[tuple[str, pl.DataFrame]]:
    """Binary labels of a task by name; a task of several groups is one a group. A number to be foreseen is left out."""
    frame = rows_of(task, job)
    if frame["label"].dtype.is_float():
        return
    if "code_group" not in frame.columns:
        yield task, frame
        return
    for (group,), of_group in frame.partition_by("code_group", as_dict=True, maintain_order=True).items():
        yield f"{task}/{group}", of_group
