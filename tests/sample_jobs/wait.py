"""Starts a child and a local Ray if told, says so in a file, and waits: something to cancel."""

import os
import subprocess
import sys
import time
from pathlib import Path

from ray_jobs.runtime import Job, main


def run(job: Job) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(600)"]
    )
    if job.params.get("ray"):
        with job.ray(num_cpus=1):
            wait(job, child)
    wait(job, child)


def wait(job: Job, child: subprocess.Popen) -> None:
    note = Path(job.params["note"])
    note.with_suffix(".tmp").write_text(f"{os.getpid()} {child.pid} {job.scratch}")
    note.with_suffix(".tmp").rename(note)
    time.sleep(600)


if __name__ == "__main__":
    main(run)
