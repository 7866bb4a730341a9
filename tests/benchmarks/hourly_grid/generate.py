"""Synthetic ICU events as an accepted input layer: the same bytes for the same number of rows."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from orchestration import catalog, dictionary, input_layer
from tests.small_input import accept

HERE = Path(__file__).parent
HOURS, ROWS_PER_STAY, BUCKET_ROWS = 72, 2000, 2_000_000
LATER = ("fio2", "peep", "urine_output", "weight")  # so that every aggregate but mean, min and max occurs


def mapped_concepts() -> list[dict[str, str]]:
    """48 concepts of the dictionary, vital signs first; each is measured by one item."""
    concepts = dictionary.read_csv(dictionary.SEEDS / "concepts.csv")
    return [c for c in concepts if c["concept"] not in LATER][:44] + [
        c for c in concepts if c["concept"] in LATER
    ]


def generated_items() -> list[tuple]:
    """(item_no, code, low, high, unit, other_unit, factor, shift): half of the plausible range, two units where two exist."""
    others = {
        c["concept"]: c for c in reversed(dictionary.conversions()) if (c["factor"], c["shift"]) != (1, 0)
    }
    spelling = {u["ucum"]: u["spelling"] for u in dictionary.read_csv(dictionary.SEEDS / "units.csv")}
    rows = []
    for number, concept in enumerate(mapped_concepts()):
        low, high = float(concept["plausible_low"]), float(concept["plausible_high"])
        own = spelling[concept["unit"]]
        other = others.get(concept["concept"]) or {"unit_from": concept["unit"], "factor": 1.0, "shift": 0.0}
        middle = (low + (high - low) / 4, low + (high - low) * 3 / 4)
        there = spelling[other["unit_from"]]
        rows.append((number, str(220000 + number), *middle, own, there, other["factor"], other["shift"]))
    return rows


def generate(root: str, rows: int, buckets: int | None = None) -> None:
    """An accepted hospital `bench` of about so many measurements, sorted by patient and time; `buckets` of BUCKET_ROWS."""
    stays, buckets = max(1, rows // ROWS_PER_STAY), buckets or buckets_of(rows)
    items = generated_items()
    listed = [
        {
            "source_table": "chartevents",
            "code": i[1],
            "unit": i[4],
            "concept": c["concept"],
            "decision": "map",
        }
        for i, c in zip(items, mapped_concepts(), strict=True)
    ]
    accept(root, "bench", {"items": listed}, buckets)
    values = {"stays": stays, "buckets": buckets, "rows_per_stay": ROWS_PER_STAY, "hours": HOURS}
    with duckdb.connect(
        config={"threads": 1, "memory_limit": "2GB", "temp_directory": f"{root}/spill"}
    ) as connection:
        connection.execute(
            "create table items (item_no int, code text, low double, high double, unit text, other_unit text, "
            "factor double, shift double)"
        )
        connection.executemany("insert into items values (?, ?, ?, ?, ?, ?, ?, ?)", items)
        for table in ("patients", "visits", "stays", "measurements"):
            for path in catalog.load(root).files(f"input/bench/{table}"):
                bucket = int(re.search(r"bucket=(\d+)", path)[1])
                used = {k: v for k, v in (values | {"bucket": bucket}).items() if f"${k}" in _source(table)}
                connection.execute(
                    f"copy ({_source(table)}) to '{path}' (format parquet, compression zstd, row_group_size 122880)",
                    used,
                )


def buckets_of(rows: int) -> int:
    return max(1, round(rows / BUCKET_ROWS))


def _source(table: str) -> str:
    if table == "measurements":
        return (HERE / "events.sql").read_text()
    made = {
        "hospital": "'bench'",
        "patient_id": "'p' || n",
        "visit_id": "'v' || n",
        "stay_id": "'s' || n",
        "event_at": "timestamp '2150-01-01 00:00:00' + to_hours(n)",
        "end_at": "timestamp '2150-01-01 00:00:00' + to_hours(n + $hours)",
        "available_at": "timestamp '2150-01-01 00:00:00' + to_hours(n)",
        "is_icu": "true",
        "row_id": f"'{table}:' || n",
    }
    columns = ", ".join(
        f"cast({made.get(c, 'null')} as {t}) as {c}" for c, t in input_layer.tables()[table].items()
    )
    return f"select {columns} from (select unnest(range($bucket, $stays, $buckets)) as n)"
