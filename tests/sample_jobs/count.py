"""Counts to `params.to` in a Ray task or in this process, and publishes the number as Parquet and a note."""

import time

import polars as pl

from ray_jobs.config import JobError
from ray_jobs.runtime import Check, Job, Markdown, main


def run(job: Job) -> None:
    params = job.params
    if params.get("sleep"):
        job.log.info("sleeps")
        time.sleep(params["sleep"])
    if params.get("raise") == "named":
        raise JobError("the sample is told to fail; set raise to nothing")
    if params.get("raise"):
        raise ValueError("SENTINEL-patient-4711")
    total = sum_on_ray(job, params["to"]) if params.get("ray") else sum(range(params["to"] + 1))
    if params.get("stands"):
        job.stands("weights/sample", {"why": "nothing better"})
        job.report(Check("weights/sample", "is_large", False, severity="WARN", metadata={"total": total}))
        return
    pl.DataFrame({"total": [total]}).write_parquet(job.output("weights/sample") / "data.parquet")
    if params.get("note", True):
        (job.output("weights/sample") / "note.json").write_text("{}")
    large = Check(
        "weights/sample",
        "is_large",
        total > params.get("least", 0),
        params.get("severity", "ERROR"),
        {"total": total},
    )
    job.publish(
        {
            "weights/sample": {
                "total": total,
                "parts": {"sum": total},
                "unknown": None,
                "table": Markdown(f"| total |\n|---|\n| {total} |"),
            }
        },
        [large],
    )


def sum_on_ray(job: Job, to: int) -> int:
    import ray

    with job.ray():
        return ray.get(ray.remote(total_of).remote(to))


def total_of(to: int) -> int:
    if to < 0:
        raise JobError(f"to is {to}; give a number of 0 or more")
    return sum(range(to + 1))


if __name__ == "__main__":
    main(run)
