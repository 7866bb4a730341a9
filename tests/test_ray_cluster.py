"""RayJob against a real Ray head on the loopback, through the Jobs API with token authentication."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestration import catalog, quiet
from tests.test_ray_job import KEY, alive, execute

pytestmark = pytest.mark.night


def free_ports(n):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


@pytest.fixture(scope="module")
def head():
    """An own Ray head with its own token: (address of the Jobs API, environment of its clients)."""
    folder = tempfile.mkdtemp(prefix="wl", dir="/tmp")
    gcs, dashboard, client, agent = free_ports(4)
    token = {**quiet.SETTINGS, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"),
        *(f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
        *(f"--dashboard-agent-listen-port={agent}", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"),
    ]
    environment = {**os.environ, **token}
    with open(f"{folder}.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for(lambda: answers(address))
        yield address, token
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        finally:
            end_what_names(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.remove(f"{folder}.log")


def answers(address):
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def end_what_names(folder):
    """Kill the processes of just this head: those whose command line names its folder."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                if folder in (process / "cmdline").read_text():
                    os.kill(int(process.name), signal.SIGKILL)
            except (OSError, ProcessLookupError):
                continue


def wait_for(condition, within=90):
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)


def test_the_same_job_through_the_jobs_api(head, tmp_path):
    address, token = head
    job = {
        "job": "count",
        "params": {"to": 4, "ray": True},
        "checks": [{"name": "is_large", "description": "."}],
    }
    process = execute(tmp_path, {**job, "ray_address": address}, **token)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0, out[-3000:]
    assert catalog.load(str(tmp_path)).entry(KEY)["metadata"]["total"] == 10
    assert "ASSET_CHECK_EVALUATION" in out or "is_large" in out


def test_a_job_that_fails_there_says_its_line_here(head, tmp_path):
    address, token = head
    process = execute(
        tmp_path, {"job": "count", "params": {"to": 4, "raise": "named"}, "ray_address": address}, **token
    )
    out, _ = process.communicate(timeout=180)
    assert process.returncode != 0 and "the sample is told to fail; set raise to nothing" in out


def test_cancelling_stops_the_ray_job(head, tmp_path):
    address, token = head
    note = tmp_path / "note"
    process = execute(
        tmp_path, {"job": "wait", "params": {"note": str(note)}, "ray_address": address}, **token
    )
    wait_for(note.exists)
    job, child, _ = note.read_text().split()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=90)
    wait_for(lambda: not alive(job) and not alive(child), within=30)
    assert (
        json.loads((tmp_path / "candidates").glob("*/wait.json").__next__().read_text())["ray_address"]
        == address
    )
