"""Labels of the warehouse as the models read them: tasks, their binary parts, and tables of the catalog as frames."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from orchestration import catalog
from ray_jobs.runtime import Job

KEYS = ["hospital", "patient_id", "prediction_at"]


def read(job: Job, key: str) -> pl.DataFrame:
    """All rows of an input of the job that is a table."""
    files = [catalog.fetched(url, job.scratch) for url in sorted(job.files(key))]
    return pl.concat(pl.read_parquet(file, hive_partitioning=False) for file in files)


def people(splits: pl.DataFrame) -> pl.DataFrame:
    """hospital, patient_id, split and person: one name for whoever is a patient of several hospitals, as splits are made."""
    person = pl.concat_str("person_group", "person_id", separator=chr(31)).alias("person")
    return splits.select("hospital", "patient_id", "split", person)


def tasks_of(job: Job) -> list[str]:
    """Names of the tasks that are asked for, each an input of the job: `tasks`, or all but those in `without`."""
    given = {k.removeprefix("labels/") for k in job.config.inputs if k.startswith("labels/")}
    return list(job.params.get("tasks") or sorted(given - set(job.params.get("without", []))))


def parts(task: str, job: Job) -> Iterator[tuple[str, pl.DataFrame]]:
    """Binary labels of a task by name; a task of several groups is one a group. A number to be foreseen is left out."""
    frame = read(job, f"labels/{task}")
    if frame["label"].dtype.is_float():
        return
    if "code_group" not in frame.columns:
        yield task, frame
        return
    for (group,), of_group in frame.partition_by("code_group", as_dict=True, maintain_order=True).items():
        yield f"{task}/{group}", of_group
