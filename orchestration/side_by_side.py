"""Buckets of the warehouse on a Ray cluster: submitted as one job, whose workers leave the tables in the data root, and fetched
from there when all are made."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestration import catalog, dbt, gem, launch
from ray_jobs.config import JobConfig

JOB = "buckets"


@dataclass
class Cluster:
    """Where the buckets of one run are made. `address`: the cluster's Jobs API; `fingerprint`: of what they are made from."""

    address: str
    root: str
    run_id: str
    hospitals: Sequence[str]
    fingerprint: str
    memory: str
    threads: int
    project: Path

    def make(self, buckets: Sequence[int], out: Path) -> list[dbt.NodeResult]:
        """Make these buckets into the folder `out`; returns what became of every node.

        Raises launch.LaunchError if the cluster cannot be used, launch.JobFailed with the job's own line if it fails.
        """
        launch.check_address(self.address, self.root)
        place = catalog.join(self.root, "candidates", self.run_id, JOB)
        params = {
            "hospitals": list(self.hospitals),
            "buckets": list(buckets),
            "memory": self.memory,
            "threads": self.threads,
            "project": os.path.relpath(self.project, catalog.REPOSITORY),
            "into": place,
        }
        config = JobConfig(JOB, self.run_id, self.root, self.fingerprint, {}, [], params, self.address)
        variables = {name: os.environ[name] for name in (gem.LOCATION,) if os.environ.get(name)}
        fs = catalog.filesystem(place)
        try:
            launch.submit(f"ray_jobs.{JOB}", config.write(), self.address, self.run_id, variables)
            results = json.loads(catalog.read_bytes(config.beside(".results.json")))
            if fs.exists(place):  # nothing is there where a test failed
                fs.get(f"{place}/", f"{out}/", recursive=True)
        except launch.JobFailed as error:
            with contextlib.suppress(FileNotFoundError):
                line = json.loads(catalog.read_bytes(config.beside(".failure.json")))["error"]
                raise launch.JobFailed(line) from None
            raise error
        finally:
            if fs.exists(place):
                fs.rm(place, recursive=True)
        return [dbt.NodeResult(**result) for result in results]
