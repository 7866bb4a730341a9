"""Job: buckets of the warehouse side by side, one Ray task each; the step that submitted the job publishes what they made.

Each task reads the accepted input layer from the data root and leaves its tables below `into`, a URL that the cluster and
that step both reach; the job leaves what became of dbt's nodes in `buckets.results.json`. Parameters (see
orchestration/side_by_side.py): `hospitals`, `buckets`, `memory`, `threads`, `project`, `into`.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from orchestration import catalog, dbt, dictionary, harmonise
from orchestration.buckets import fingerprint_of
from orchestration.warehouse_run import Run
from ray_jobs.config import JobError
from ray_jobs.reporting import frames
from ray_jobs.runtime import Job, main

STARTS = 2  # of a bucket whose worker was lost; one that fails by itself is not tried again
TIDIES_WITHIN_S = 20


def run(job: Job) -> None:
    """Make the buckets; after the first with a failed test no other starts. Raises JobError naming the bucket that failed."""
    with job.ray():
        made = side_by_side(job)
    results = [node for number in sorted(made) for node in made[number]]
    catalog.write_bytes(job.config.beside(".results.json"), json.dumps(results).encode())


def side_by_side(job: Job) -> dict[int, list[dict]]:
    """Bucket to what became of dbt's nodes, in plain values."""
    import ray

    largest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
    cpus = max(1, min(int(job.params["threads"]), largest))
    work = ray.remote(num_cpus=cpus, max_retries=0)(
        bucket
    )  # Ray's own retries have no end where memory is short
    config = asdict(job.config)
    waiting = {work.remote(config, number): (number, 1) for number in job.params["buckets"]}
    made: dict[int, list[dict]] = {}
    try:
        while waiting:
            [done], _ = ray.wait(list(waiting), num_returns=1)
            number, start = waiting.pop(done)
            try:
                part = ray.get(done)
            except ray.exceptions.RayError as error:
                lost = f"bucket {number}: its worker was lost ({type(error).__name__})"
                if start == STARTS:
                    raise JobError(
                        f"{lost} {STARTS} times; give the nodes more memory, or the hospitals more buckets"
                    ) from None
                job.log.warning("%s, starts again", lost)
                waiting[work.remote(config, number)] = (number, start + 1)
                continue
            if "fault" in part:
                raise JobError(f"bucket {number}: {part['fault']}")
            made[number] = part["nodes"]
            failed = sum(dbt.NodeResult(**node).failed for node in part["nodes"])
            job.log.info(
                "bucket %d made, %d of %d; %d failed tests",
                number,
                len(made),
                len(job.params["buckets"]),
                failed,
            )
            if failed:
                break
    finally:
        for task in waiting:
            ray.cancel(task)
        if waiting:
            ray.wait(list(waiting), num_returns=len(waiting), timeout=TIDIES_WITHIN_S)
    return made


def bucket(config: dict, number: int) -> dict:
    """One bucket, wherever it runs: {nodes: what became of them} or {fault: one line without a patient's value}."""
    try:
        return {"nodes": _tables(config["root"], config["fingerprint"], config["params"], number)}
    except (JobError, dbt.DbtError, catalog.CatalogError, dictionary.DictionaryError) as error:
        return {"fault": str(error)}
    except Exception as error:  # its text may quote rows, and Ray would write it down
        places = [line for line in frames(error) if line.startswith("File ")]
        return {"fault": f"unexpected {type(error).__name__} at {places[-1] if places else 'unknown place'}"}


def _tables(root: str, fingerprint: str, params: dict, number: int) -> list[dict]:
    project = (catalog.REPOSITORY / params["project"]).resolve()
    accepted = catalog.load(root)
    inputs = harmonise.inputs_of(accepted, params["hospitals"])
    if fingerprint_of(inputs, project) != fingerprint:
        raise JobError("the workers hold other code or vocabularies than this night; give them its image")
    models = harmonise.published_models(dbt.manifest(project))
    with catalog.scratch("bucket") as scratch:
        run = Run(
            scratch, accepted, sorted(inputs), models, params["memory"], int(params["threads"]), project
        )
        results = run.make(number)
        fs = catalog.filesystem(params["into"])
        for path in sorted((scratch / "out").rglob("*.parquet")):
            place = catalog.join(params["into"], path.relative_to(scratch / "out").as_posix())
            fs.makedirs(place.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(path), place)
    return [asdict(node) for node in results]


if __name__ == "__main__":
    main(run)
