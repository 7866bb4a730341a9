"""A run that was killed keeps neither its slot of a pool nor the look of one that goes on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
from dagster._core.test_utils import create_run_for_test

from orchestration import dead_runs
from tests.conftest import REPOSITORY

JOBS = """
import os, pathlib, time
import dagster as dg
from orchestration.dead_runs import after_the_dead

@dg.asset(pool="training")
def slow():
    pathlib.Path(os.environ["STARTED"]).touch()
    time.sleep(float(os.environ["SLEEPS"]))

defs = dg.Definitions(assets=[slow], jobs=[dg.define_asset_job("night")], executor=after_the_dead)
"""


def start(folder: Path, started: str, sleeps: int) -> subprocess.Popen:
    variables = {
        "DAGSTER_HOME": str(folder),
        "WARDLINE_STATE": str(folder / "state"),
        "STARTED": str(folder / started),
        "SLEEPS": str(sleeps),
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [
        sys.executable,
        "-m",
        "dagster",
        "job",
        "execute",
        "-f",
        str(folder / "jobs.py"),
        "-j",
        "night",
    ]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_after_kill_minus_nine_the_next_run_does_not_wait(tmp_path, monkeypatch):
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "state").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    killed = start(tmp_path, "first", 3600)
    while not (tmp_path / "first").exists():
        assert killed.poll() is None
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert start(tmp_path, "second", 0).wait(timeout=180) == 0
    monkeypatch.setenv("WARDLINE_STATE", str(tmp_path / "state"))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        found = [run.status for run in instance.get_runs()]
    assert found == [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


def test_only_runs_whose_process_died_here_are_cleared():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = {dead_runs.HOST: socket.gethostname()}
    tags = {
        "mine": here | {dead_runs.PID: str(os.getpid())},
        "dead": here | {dead_runs.PID: str(ended.pid)},
        "alive": here | {dead_runs.PID: str(os.getppid())},
        "elsewhere": {dead_runs.HOST: "another.host", dead_runs.PID: str(ended.pid)},
        "unknown": {},
        "before a restart": here | {dead_runs.PID: str(os.getpid())},  # the same number, another process
    }
    with dg.DagsterInstance.ephemeral() as instance:
        runs = {
            create_run_for_test(instance, tags=of, status=dg.DagsterRunStatus.STARTED).run_id: name
            for name, of in tags.items()
        }
        mine = next(run for run, name in runs.items() if name == "mine")
        cleared = {runs[run] for run in dead_runs.clear(instance, mine)}
        assert cleared == {"dead", "before a restart"}
        status = {name: instance.get_run_by_id(run).status for run, name in runs.items()}
    assert {name for name, s in status.items() if s == dg.DagsterRunStatus.FAILURE} == cleared
