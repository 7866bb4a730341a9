"""Job: the yes/no tasks of the warehouse as questions to a language model, instructions/tasks.

Reads splits and labels/<task>; one row a label, with the columns that training and answering read: hospital, patient_id,
visit_id, split, cutoff_at (the prediction time), question, answer (yes or no), says (the same) and task (with its group, `<task>/<group>`). The
question is that of dbt_project/tasks. Parameter `train_per_task`: at most so many labels of a task are trained on, first up to
half of them positive ones, drawn by a hash; a task with one class on the train split is not trained. Tuning and held_out are whole.
"""

from __future__ import annotations

import hashlib

import polars as pl

from orchestration import dbt
from orchestration.tasks import definition
from ray_jobs.config import JobError
from ray_jobs.prediction.labels import KEYS, parts, read, tasks_of
from ray_jobs.runtime import Job, main

KEY = "instructions/tasks"
COLUMNS = ["hospital", "patient_id", "visit_id", "split", "cutoff_at", "question", "answer", "says", "task"]


def run(job: Job) -> None:
    """Raises JobError if no task has a label."""
    splits = read(job, "splits").select("hospital", "patient_id", "split")
    known, most = definition.read(dbt.PROJECT), int(job.params["train_per_task"])
    frames = []
    for task in tasks_of(job):
        for name, labels in parts(task, job):
            group = name.removeprefix(f"{task}/") if "code_group" in labels.columns else None
            asked = questions(labels.join(splits, on=KEYS[:2]), name, known[task].asked(group))
            trained = chosen(asked.filter(pl.col("split") == "train"), most)
            frames += [asked.filter(pl.col("split") != "train"), trained]
    table = pl.concat(frames) if frames else pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.String))
    if table.is_empty():
        raise JobError("no task has a label; materialise labels/* with at least one hospital")
    table.sort("task", "hospital", "patient_id", "cutoff_at", "visit_id", "answer").write_parquet(
        job.output(KEY) / "data.parquet"
    )
    train = table.filter(pl.col("split") == "train")
    counts = {"questions": table.height, "tasks": table["task"].n_unique()}
    job.publish({KEY: {**counts, "train": train.height, "tasks_trained": train["task"].n_unique()}})


def questions(labels: pl.DataFrame, task: str, question: str) -> pl.DataFrame:
    """COLUMNS of these labels; labels: hospital, patient_id, visit_id, prediction_at, label (0 or 1), split."""
    return (
        labels.with_columns(
            cutoff_at=pl.col("prediction_at").cast(pl.Datetime("us")),
            question=pl.lit(question),
            answer=pl.when(pl.col("label") == 1).then(pl.lit("yes")).otherwise(pl.lit("no")),
            task=pl.lit(task),
        )
        .with_columns(says=pl.col("answer"))
        .select(COLUMNS)
    )


def chosen(train: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most `most` of these rows, of which up to half are positive: the same ones every night. None of one class."""
    if train["answer"].n_unique() < 2:
        return train.clear()
    keys = train.select("task", "hospital", "patient_id", "visit_id", "cutoff_at").rows()
    order = [hashlib.sha256(chr(31).join(map(str, key)).encode()).hexdigest() for key in keys]
    train = train.with_columns(pl.Series("order", order)).sort("order")
    positive, negative = (train.filter(pl.col("answer") == answer) for answer in ("yes", "no"))
    kept = positive.head(max(most // 2, most - negative.height))
    return pl.concat([kept, negative.head(most - kept.height)]).drop("order")


if __name__ == "__main__":
    main(run)
