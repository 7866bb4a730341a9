"""Buckets side by side on a real Ray head on the loopback: the same bytes as one after another in one process."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration import catalog, harmonise, launch
from ray_jobs import buckets
from ray_jobs.config import JobConfig, JobError
from ray_jobs.runtime import Job
from tests import small_project
from tests.small_input import accept
from tests.small_world import world
from tests.test_ray_cluster import head  # noqa: F401

SENTINEL = "SENTINEL-4711"
NIGHT = """
import sys
from pathlib import Path
from orchestration import dbt, harmonise, launch
root, project = sys.argv[1:]
try:
    outcome = harmonise.harmonise(root, Path(root).name, ["north"], "500MB", 1, Path(project), launch.address_of())
except (dbt.DbtError, *launch.FAULTS) as error:
    sys.exit(f"fault: {error}")
print([test.name for test in outcome.failed_tests], outcome.made, outcome.unchanged)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return small_project.write(tmp_path_factory.mktemp("project") / "dbt_project")


def night(root: Path, project: Path, **environment: str) -> subprocess.CompletedProcess:
    """One making of the tables in a process of its own, on the cluster if RAY_ADDRESS is among its variables."""
    command = [sys.executable, "-c", NIGHT, str(root), str(project)]
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd=catalog.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=400,
    )


def made_of(root: Path) -> dict[str, dict]:
    """What the catalog says of every table: bytes, rows, fates, buckets, fingerprints; not when and by which run."""
    entries = catalog.load(str(root)).accepted.items()
    return {key: {k: v for k, v in e.items() if k not in ("run_id", "published_at")} for key, e in entries}


@pytest.mark.night
def test_two_workers_make_the_bytes_of_one_process(head, tmp_path, project):  # noqa: F811
    address, token = head
    for name, environment in (("one", {}), ("several", {"RAY_ADDRESS": address, **token})):
        accept(str(tmp_path / name), "north", world(4), buckets=2)
        ended = night(tmp_path / name, project, **environment)
        assert ended.stdout.strip() == "[] (0, 1) ()", ended.stderr[-2000:]
    assert made_of(tmp_path / "several") == made_of(tmp_path / "one")
    fates = catalog.load(str(tmp_path / "several")).entry("harmonised/fates")["metadata"]["fates"]["north"]
    assert sum(fates.values()) == len(world(4)["measurements"]) and fates["kept"] > 0
    left = [path.name for path in (tmp_path / "several" / "candidates" / "several").iterdir()]
    assert sorted(left) == ["buckets.json", "buckets.log", "buckets.results.json"], "the tables are fetched"
    log = (tmp_path / "several" / "candidates" / "several" / "buckets.log").read_text()
    assert "bucket 1 made" in log and "2 of 2; 0 failed tests" in log


@pytest.mark.night
def test_a_bucket_that_fails_is_named_once_and_nothing_is_published(head, tmp_path, project):  # noqa: F811
    address, token = head
    root = tmp_path / "broken"
    accept(str(root), "north", world(4), buckets=2)
    [broken] = root.glob("input/north/measurements/bucket=1/*.parquet")
    broken.write_bytes(SENTINEL.encode() * 9)
    ended = night(root, project, RAY_ADDRESS=address, **token)
    assert ended.returncode and "fault: bucket 1: " in ended.stderr, ended.stderr[-2000:]
    assert all(key.startswith("input/") for key in made_of(root))
    said = ended.stdout + ended.stderr
    said += "".join(path.read_text() for path in (root / "candidates").rglob("buckets.*"))
    assert SENTINEL not in said
    assert json.loads((root / "candidates" / "broken" / "buckets.failure.json").read_text())["code"] == 2


def test_a_cluster_that_does_not_answer_is_named(tmp_path, project):
    accept(str(tmp_path), "north", world(2), buckets=2)
    with pytest.raises(launch.LaunchError, match=r"no Ray answers at http://127\.0\.0\.1:9 within"):
        harmonise.harmonise(str(tmp_path), "run", ["north"], project=project, address="http://127.0.0.1:9")


@pytest.mark.night
@pytest.mark.parametrize("deaths", [1, 2])
def test_a_bucket_whose_worker_is_lost_starts_once_more(tmp_path, monkeypatch, deaths):
    def dying(config: dict, number: int) -> dict:
        note = Path(config["root"]) / f"{number}.starts"
        starts = int(note.read_text()) if note.exists() else 0
        note.write_text(str(starts + 1))
        if number == 1 and starts < deaths:
            os._exit(1)
        return {"nodes": []}

    monkeypatch.setattr(buckets, "bucket", dying)
    params = {"buckets": [0, 1, 2], "threads": 8, "num_cpus": 2}
    config = JobConfig("buckets", "run", str(tmp_path), "fingerprint", {}, [], params)
    job = Job(config, tmp_path, logging.getLogger("test"), None)
    with job.ray():
        if deaths < buckets.STARTS:
            assert buckets.side_by_side(job) == {0: [], 1: [], 2: []}
        else:
            with pytest.raises(
                JobError, match=r"bucket 1: its worker was lost \(WorkerCrashedError\) 2 times"
            ):
                buckets.side_by_side(job)
    assert (tmp_path / "1.starts").read_text() == "2"
