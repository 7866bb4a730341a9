"""The contract of the input layer, read from `dbt_project/models/input/sources.yml`: ten tables, one schema for all."""

from functools import cache

import yaml

from orchestration import catalog

CONTRACT = catalog.REPOSITORY / "dbt_project" / "models" / "input" / "sources.yml"
# What makes a row of these tables one row; a second row with the same key is rejected.
KEYS = {
    "patients": ("patient_id",),
    "visits": ("visit_id",),
    "stays": ("stay_id",),
    "items": ("source_table", "code"),
}
# A row without them means nothing and is rejected with a reason; event_at is added where the table has it.
REQUIRED = {
    "patients": ("patient_id",),
    "visits": ("patient_id", "visit_id"),
    "stays": ("patient_id", "visit_id", "stay_id"),
    "measurements": ("patient_id", "source_table", "code"),
    "diagnoses": ("patient_id", "code"),
    "items": ("source_table", "code"),
}
# Written by HospitalSource itself, never mapped.
WRITTEN = frozenset({"hospital", "split", "row_id"})
# Not mapped as expressions over raw tables: they come with items.csv.
FROM_ITEMS_CSV = frozenset({"concept", "decision", "reason", "mapped_by"})


@cache
def tables() -> dict[str, dict[str, str]]:
    """Column names and DuckDB types (upper case) of each input table, in the order in which they are written."""
    content = yaml.safe_load(CONTRACT.read_text())
    source = next(s for s in content["sources"] if s["name"] == "input")
    return {t["name"]: {c["name"]: c["data_type"].upper() for c in t["columns"]} for t in source["tables"]}


def required(table: str) -> tuple[str, ...]:
    columns = REQUIRED.get(table, ("patient_id",))
    return (*columns, "event_at") if "event_at" in tables()[table] else columns


def mappable(table: str) -> list[str]:
    """The columns that a mapping may fill."""
    left_out = WRITTEN | (FROM_ITEMS_CSV if table == "items" else frozenset())
    return [c for c in tables()[table] if c not in left_out]


def sort_columns(table: str) -> list[str]:
    order = [c for c in ("patient_id", "event_at") if c in tables()[table]]
    return [*order, "row_id"] if order else ["source_table", "code", "row_id"]
