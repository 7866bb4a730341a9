"""What the exports to other people's formats share: publishing under the night's lock, as a Dagster step or as a command."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import dagster as dg

from orchestration import catalog, hospitals, locks

Export = Callable[[str, str], dict[str, dict]]  # (data root, run id) to counts by published key


def materialised(run_id: str, export: Export, rows: str) -> Iterator[dg.MaterializeResult]:
    """One result a published key; `rows` names the count that is its number of rows. Raises dg.Failure."""
    root = catalog.data_root()
    try:
        with locks.night_lock(root, run_id):
            made = export(root, run_id)
    except catalog.CatalogError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    for key, counts in made.items():
        version = catalog.load(root).version(key)
        yield dg.MaterializeResult(
            key.split("/"),
            metadata={**counts, "dagster/row_count": counts[rows], "version": version},
            data_version=dg.DataVersion(version),
        )


def command(name: str, export: Callable[[str, str, list[str]], dict[str, dict]]) -> int:
    """Export every configured hospital and print the counts; returns the exit code."""
    root, run_id = catalog.data_root(), f"{name}-{int(time.time())}"
    try:
        hospitals.require_all(catalog.load(root))
        with locks.night_lock(root, run_id):
            made = export(root, run_id, hospitals.configured_names())
    except catalog.CatalogError as error:
        print(error, file=sys.stderr)
        return 2
    for key, counts in made.items():
        print(f"{key}: {', '.join(f'{name} {value}' for name, value in counts.items())}")
    return 0
