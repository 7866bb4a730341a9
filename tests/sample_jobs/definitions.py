"""A code location with one RayJob, described by the JSON in SAMPLE_JOB: for tests that start Dagster as a process."""

import json
import os
from types import SimpleNamespace

import dagster as dg

from orchestration.components.ray_job import RayJob

sample = RayJob(
    package="tests.sample_jobs",
    asset="weights/sample",
    group="weights",
    **json.loads(os.environ["SAMPLE_JOB"]),
)
defs = dg.Definitions.merge(
    sample.build_defs(SimpleNamespace(path="tests/sample_jobs")),
    dg.Definitions(jobs=[dg.define_asset_job("sample")], executor=dg.in_process_executor),
)
