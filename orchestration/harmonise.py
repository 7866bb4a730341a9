"""From the accepted input layer to harmonised tables, features, labels and splits: `python -m orchestration.harmonise`.

dbt does the work (warehouse_run.py), one bucket of patients after another or side by side on a Ray cluster (side_by_side.py);
models tagged `whole_set` run last over all buckets. The finished tables are published all together or not at all. Nothing new means nothing done:
a bucket whose rows are those of the accepted version keeps its published files (buckets.py).
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestration import catalog, dbt, dictionary, input_layer, locks
from orchestration.buckets import fingerprint_of
from orchestration.warehouse_run import Run


class NothingAccepted(catalog.CatalogError):
    """No configured hospital has an accepted input layer."""


@dataclass
class Outcome:
    """What a run did: published asset keys, dbt's results, and counts that may be shown.

    `made` are the buckets that were computed, `unchanged` those whose published files stand.
    """

    keys: tuple[str, ...]
    version: str
    reused: bool = False
    results: list[dbt.NodeResult] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    fates: dict[str, dict[str, int]] = field(default_factory=dict)
    made: tuple[int, ...] = ()
    unchanged: tuple[int, ...] = ()
    seconds: float = 0.0

    @property
    def failed_tests(self) -> list[dbt.NodeResult]:
        return [r for r in self.results if r.failed]


def published_models(manifest: Mapping) -> dict[str, dict]:
    """Asset key to dbt node of every model that is published: all but the steps on the way."""
    nodes = [
        n for n in manifest["nodes"].values() if n["resource_type"] == "model" and "step" not in n["tags"]
    ]
    return {"/".join(node["fqn"][1:]): node for node in nodes}


def inputs_of(accepted: catalog.Catalog, hospitals: Iterable[str]) -> dict[str, str]:
    """Asset key to accepted version of every input table of these hospitals. Raises NothingAccepted if there is none."""
    keys = [f"input/{hospital}/{table}" for hospital in hospitals for table in input_layer.tables()]
    inputs = {key: accepted.version(key) for key in keys if key in accepted.accepted}
    if not inputs:
        names = ", ".join(hospitals) or "none is configured"
        raise NothingAccepted(
            f"no hospital has an accepted input layer in {accepted.root} (configured: {names}); materialise input/<hospital> "
            "first and mend what its check the_export_is_accepted names"
        )
    return inputs


def harmonise(
    root: str,
    run_id: str,
    hospitals: Sequence[str],
    memory: str = "1200MB",
    threads: int = 2,
    project: Path = dbt.PROJECT,
    address: str | None = None,
) -> Outcome:
    """Bring the accepted input layer of these hospitals to published tables, or reuse what was made from just this.

    address: the Jobs API of a Ray cluster on which several buckets are made side by side, to the same bytes.
    Raises NothingAccepted, dbt.DbtError, launch.LaunchError, launch.JobFailed, catalog.GateRefused. Failed dbt tests are in
    the outcome; then nothing was published.
    """
    started = time.monotonic()
    accepted = catalog.load(root)
    inputs = inputs_of(accepted, hospitals)
    fingerprint = fingerprint_of(inputs, project)
    models = published_models(dbt.manifest(project))
    outcome = Outcome(tuple(sorted(models)), fingerprint[:12])
    if all(accepted.reusable(key, fingerprint) for key in models):
        outcome.reused = True
        outcome.rows = {key: accepted.rows(key) for key in models}
        outcome.fates = accepted.entry("harmonised/fates")["metadata"]["fates"]
        return outcome
    with catalog.scratch("warehouse") as scratch:
        run = Run(scratch, accepted, sorted(inputs), models, memory, threads, project)
        if address:
            from orchestration.side_by_side import (
                Cluster,
            )  # with Dagster's clients, which a worker does without

            run.cluster = Cluster(address, root, run_id, hospitals, fingerprint, memory, threads, project)
        outcome.results = run.work()
        outcome.made, outcome.unchanged = tuple(run.buckets.made), tuple(run.buckets.unchanged)
        if outcome.failed_tests:
            return outcome
        outcome.rows = {key: run.rows(key) for key in models}
        outcome.fates = run.fates()
        candidates = [
            catalog.Candidate(
                key,
                run.folder(key),
                fingerprint,
                inputs,
                {"rows": outcome.rows[key], "buckets": run.buckets.made_of, "holds": run.holds()}
                | ({"fates": outcome.fates} if key == "harmonised/fates" else {}),
                unchanged=run.buckets.kept(key),
            )
            for key in outcome.keys
        ]
        catalog.publish(root, run_id, candidates)
    outcome.seconds = time.monotonic() - started
    return outcome


def main() -> int:
    from orchestration import hospitals, launch

    root = catalog.data_root()
    run_id = f"harmonise-{int(time.time())}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that scratch goes, and a cluster's job ends
    try:
        hospitals.require_all(catalog.load(root))
        with locks.night_lock(root, run_id):
            names = hospitals.configured_names()
            outcome = harmonise(root, run_id, names, address=launch.address_of())
    except (catalog.CatalogError, dbt.DbtError, dictionary.DictionaryError, *launch.FAULTS) as error:
        print(error, file=sys.stderr)
        return 2
    for test in outcome.failed_tests:
        print(f"not published: dbt test {test.name} found {test.failures} rows", file=sys.stderr)
    for key, rows in sorted(outcome.rows.items()):
        print(f"{key:<32} {rows:>10} rows")
    for hospital, fates in sorted(outcome.fates.items()):
        print(f"{hospital}: {', '.join(f'{fate} {n}' for fate, n in sorted(fates.items()))}")
    made = (
        "reused, nothing new"
        if outcome.reused
        else f"{len(outcome.made)} buckets made, {len(outcome.unchanged)} unchanged, in {outcome.seconds:.0f} s"
    )
    print(f"version {outcome.version}: {made}")
    return 1 if outcome.failed_tests else 0


if __name__ == "__main__":
    sys.exit(main())
