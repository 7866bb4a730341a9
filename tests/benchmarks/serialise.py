"""All prediction times of a patient in one pass, against a scan of the history for each label; equal output first.

python -m tests.benchmarks.serialise        # records of EHRSHOT's mean size: 6,182 events, 187 labels at 64 times

A label of another task at the same time is a scan of its own in the published code, so here too. `growth` is the time of one
pass over four times the events, divided by four: 1 is linear. The least ratio of the three serialisers is the figure.
"""

import argparse
import json
import time
from datetime import datetime, timedelta

import numpy as np

from ray_jobs.records.listing import List
from ray_jobs.records.markdown import Markdown
from ray_jobs.records.walk import KNOWN, Costs, Event, Serialiser, read
from ray_jobs.records.weighed import Weighed

START = datetime(2150, 1, 1)
BUDGET = 4096
CONCEPTS = {f"c{i}": (1, 2.0, 8.0) for i in range(60)} | {
    "creatinine": (1, 0.5, 1.3),
    "heart_rate": (0, 60.0, 100.0),
}


def record(events: int, seed: int) -> list[Event]:
    """58 visits over 8 years, as EHRSHOT's median patient has; sorted by when things became known."""
    rng, rows = np.random.default_rng(seed), []
    concepts = list(CONCEPTS)
    for i in range(events):
        visit = int(rng.integers(58))
        at = START + timedelta(days=50 * visit, minutes=int(rng.integers(5 * 1440)))
        late, kind = (
            timedelta(minutes=int(rng.integers(120))),
            str(rng.choice(["lab", "vital", "diagnosis", "prescription"])),
        )
        concept = (
            concepts[rng.integers(len(concepts))]
            if kind in ("lab", "vital")
            else f"{kind}{rng.integers(150)}"
        )
        value, unit = (float(rng.normal(5, 3)), "mg/dL") if kind in ("lab", "vital") else (None, None)
        text = f"{concept} in mg/dl" if unit else f"{kind}: number {concept}"
        rows.append((f"v{visit}", at, at + late, kind, None, concept, value, unit, text, f"r{i}"))
    return sorted(rows, key=lambda row: (row[KNOWN], row[1], row[-1]))


def scanned(serialiser: Serialiser, events: list[Event], labels: list[datetime]) -> list[str]:
    """For each label, all that was known by then from the beginning."""
    return [read(serialiser, [e for e in events if e[KNOWN] <= at], [at])[0] for at in labels]


def one_pass(serialiser: Serialiser, events: list[Event], labels: list[datetime]) -> list[str]:
    times = sorted(set(labels))
    told = dict(zip(times, read(serialiser, events, times), strict=True))
    return [told[at] for at in labels]


def timed(function, *given) -> tuple[float, list[str]]:
    started = time.process_time()
    found = function(*given)
    return time.process_time() - started, found


def measure(events: int, labels: int, times: int, patients: int) -> dict[str, object]:
    costs = Costs(lambda piece: len(piece.split()) + 1)
    serialisers = [
        List(costs, {c: d for c, (d, *_) in CONCEPTS.items()}, BUDGET),
        Markdown(costs, CONCEPTS, BUDGET),
        Weighed(costs, CONCEPTS, BUDGET, {f"lab/c{i}": 0.01 * i for i in range(60)}),
    ]
    rng, found = np.random.default_rng(0), {}
    records = [record(events, seed) for seed in range(patients)]
    moments = [START + timedelta(hours=int(h)) for h in rng.integers(24, 24 * 2900, times)]
    asked = moments + [moments[i] for i in rng.integers(times, size=labels - times)]
    for serialiser in serialisers:
        ours = scan = 0.0
        for mine in records:
            seconds, texts = timed(one_pass, serialiser, mine, asked)
            ours += seconds
            seconds, expected = timed(scanned, serialiser, mine, asked)
            scan += seconds
            if texts != expected:
                raise SystemExit(
                    f"{serialiser.name}: one pass says something else than a scan for each label"
                )
        last = [max(asked)]
        many = [record(events * n, 9) for n in (4, 16)]
        small, large = (min(timed(read, serialiser, mine, last)[0] for _ in range(5)) for mine in many)
        found[serialiser.name] = {
            "one_pass_s": round(ours, 3),
            "scan_s": round(scan, 3),
            "ratio": round(scan / ours, 1),
            "growth": round(large / small / 4, 2),
        }
    return {
        "events": events, "labels": labels, "times": times, "patients": patients, **found,
        "ratio_vs_scan_per_label": min(f["ratio"] for f in found.values()),
        "growth": max(f["growth"] for f in found.values()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=6182)
    parser.add_argument("--labels", type=int, default=187)
    parser.add_argument("--times", type=int, default=64)
    parser.add_argument("--patients", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(measure(options.events, options.labels, options.times, options.patients)))


if __name__ == "__main__":
    main()
