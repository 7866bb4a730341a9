"""What share of the numbers of both MIMIC demos reaches a concept, and why the rest does not: python -m tests.benchmarks.coverage

Reads ../shared/data (prints an empty object where it is absent). One JSON object on the last line: for each hospital and table the
numeric rows, those mapped to a concept, and the others by the reason for which items.csv ignores them, or unmapped.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile

import polars as pl

from orchestration import catalog, hospitals, ingest

DATA = catalog.REPOSITORY.parent / "shared" / "data"
DEMOS = {"mimic_iii": "mimic-iii-demo-1.4", "mimic_iv": "mimic-iv-demo-2.2"}


def shares(root: str, hospital: str) -> dict[str, dict[str, float]]:
    """Table to counts and shares (%) of its rows with a number."""
    accepted = catalog.load(root)
    items = pl.read_parquet(accepted.files(f"input/{hospital}/items"))
    why = pl.coalesce(
        pl.when(pl.col("decision") == "map").then(pl.lit("mapped")), "reason", pl.lit("unmapped")
    )
    items = items.select("source_table", "code", why=why)
    rows = pl.read_parquet(accepted.files(f"input/{hospital}/measurements"))
    rows = rows.filter(pl.col("value_number").is_not_null()).join(
        items, on=["source_table", "code"], how="left"
    )
    rows = rows.with_columns(
        pl.col("why").fill_null("unmapped"), pl.col("source_table").str.replace("_venous", "")
    )
    found = {}
    for table in ("labevents", "chartevents"):
        of_table = rows.filter(pl.col("source_table") == table)
        counts = of_table.group_by("why").len().sort("len", descending=True).rows()
        found[table] = {"numeric_rows": of_table.height} | {
            why: round(100 * rows / of_table.height, 2) for why, rows in counts
        }
    return found


def main() -> int:
    result = {}
    for hospital, folder in DEMOS.items():
        if not (DATA / folder).is_dir():
            continue
        os.environ[f"{hospital.upper()}_LOCATION"] = str(DATA / folder)
        with tempfile.TemporaryDirectory() as root:
            outcome = ingest.run(hospitals.known()[hospital], root)
            if not outcome.accepted:
                print(outcome.line(), file=sys.stderr)
                return 1
            result[hospital] = shares(root, hospital)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
