"""A whole night from a fresh copy: wall time, peak memory, time in training, and the night after in which nothing is new.

    python -m tests.benchmarks.night                                                 # the two demo hospitals
    MIMIC_IV_LOCATION=... python -m tests.benchmarks.night --hospitals mimic_iv      # the same job on a real export

Peak memory is the largest sum of resident sets over the job's process tree, sampled every half second (pages that
processes share are counted once a process, so the figure is an upper bound).
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from tests.conftest import House, fresh_house


def timed_night(house: House) -> dict[str, float]:
    command = ["dagster", "job", "execute", "-m", "orchestration.definitions", "-j", "nightly_retraining"]
    log = house.folder / "night.log"
    started, peak = time.monotonic(), 0
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=house.folder, env=house.environment, stdout=file, stderr=file)
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"the night ended with exit code {process.returncode}:\n" + log.read_text()[-3000:])
    wall = round(time.monotonic() - started, 1)
    return {"wall_s": wall, "peak_rss_gb": round(peak / 2**30, 2), "training_s": training(log.read_text())}


def training(log: str) -> dict[str, float]:
    """Seconds of each step that trains, by Dagster's log (`... of step "weights__stage1" in 1m36s.`), and their sum."""
    found = re.findall(r'Finished execution of step "weights__(\w+)" in (?:(\d+)m)?([\d.]+)(m?)s', log)
    steps = {
        name: 60 * int(minutes or 0) + float(number) / (1000 if milli else 1)
        for name, minutes, number, milli in found
        if name != "champion"
    }
    return steps | {"sum": round(sum(steps.values()), 1)}


def resident(pid: int) -> int:
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hospitals", default="north,south")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        house = fresh_house(Path(folder) / "wardline")
        house.extra["WARDLINE_HOSPITALS"] = arguments.hospitals
        house.extra |= {k: v for k, v in os.environ.items() if k.endswith("_LOCATION")}
        first, second = timed_night(house), timed_night(house)
        accepted = house.catalog["accepted"]
    figures = {
        "hospitals": arguments.hospitals,
        "cores": os.cpu_count(),
        "night": first,
        "second_night_nothing_new": second,
        "rows": {
            k: sum(f.get("rows", 0) for f in e["files"]) for k, e in accepted.items() if "harmonised" in k
        },
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
