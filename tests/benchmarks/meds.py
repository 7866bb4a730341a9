"""The MEDS export of N events against a bare DuckDB sort and write of the same rows; equal output first.

    python -m tests.benchmarks.meds                         # 5 million events
    python -m tests.benchmarks.meds --events 40000000       # some 3 GB of disk below the temporary folder

Both sides have one thread count and one memory limit. The bare side is given the finished rows (subject number, code and
split in place) as unsorted Parquet, and does nothing but sort and write them, one file a split. `export_s` is the writing
of a hospital's data shards from harmonised/events; its labels, codes and the validator are told apart in `whole_s`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import duckdb

from orchestration import catalog
from orchestration.meds import export
from tests.small_input import accept

EVENTS_OF_A_PATIENT = 2000
EVENTS_OF_A_BUCKET = 20_000_000


def enter(root: str, key: str, path: str) -> None:
    files = sorted(str(p.relative_to(root)) for p in Path(root, path).rglob("*.parquet"))
    entry = {
        "version": "bench",
        "fingerprint": key,
        "files": [{"path": f} for f in files],
        "inputs": {},
        "metadata": {},
    }
    with catalog.edit(root) as content:
        content["accepted"][key] = {**entry, "run_id": "bench", "published_at": "2150-01-01T00:00:00+00:00"}


def write_events(root: str, events: int, connection: duckdb.DuckDBPyConnection) -> None:
    """A warehouse of `events` rows in buckets, sorted by patient and time as the warehouse sorts it."""
    buckets = -(-events // EVENTS_OF_A_BUCKET)
    patients = max(events // EVENTS_OF_A_PATIENT, 10)
    accept(root, "north", {}, buckets=1)
    for bucket in range(buckets):
        for table in ("harmonised/events", "input/north/patients", "splits"):
            Path(root, table, f"bucket={bucket}").mkdir(parents=True, exist_ok=True)
        connection.execute(
            f"""copy (
            select 'north' as hospital, 'p' || (i % {patients} // {buckets} * {buckets} + {bucket}) as patient_id,
                'v' || (i % {patients}) || '-' || (hash(i, 1) % 4) as visit_id, cast(null as varchar) as stay_id,
                timestamp '2140-01-01' + to_minutes(cast(hash(i, 2) % 5256000 as bigint)) as event_at,
                cast(null as timestamp) as end_at, event_at + interval 30 minutes as available_at,
                case hash(i, 3) % 10 when 0 then 'diagnosis' when 1 then 'prescription' else 'lab' end as kind,
                case kind when 'prescription' then null else 'C' || (hash(i, 4) % 900) end as code,
                case kind when 'diagnosis' then 'ICD10CM' when 'lab' then 'LOINC' end as code_system,
                case kind when 'diagnosis' then null else 'concept_' || (hash(i, 4) % 900) end as concept,
                case kind when 'lab' then (hash(i, 5) % 10000) / 10 end as value,
                case kind when 'lab' then 'mg/dL' end as unit,
                kind || ' of concept_' || (hash(i, 4) % 900) as text, 'lab:' || i as row_id
            from range({bucket}, {events}, {buckets}) as r (i) order by patient_id, event_at
            ) to '{root}/harmonised/events/bucket={bucket}/bench.parquet' (format parquet, compression zstd)"""
        )
        connection.execute(
            f"""create or replace table people as select 'north' as hospital, patient_id, 'g' as person_group,
            patient_id as person_id, case hash(patient_id) % 10 when 0 then 'tuning' when 1 then 'held_out' else 'train'
            end as split, 'F' as sex, 2080 as birth_year, cast(null as timestamp) as death_at, cast(null as varchar) as race,
            'r' as row_id from (select distinct patient_id from
            '{root}/harmonised/events/bucket={bucket}/bench.parquet')"""
        )
        for table in ("input/north/patients", "splits"):
            connection.execute(
                f"copy people to '{root}/{table}/bucket={bucket}/bench.parquet' (format parquet)"
            )
    for key in ("harmonised/events", "input/north/patients", "splits"):
        enter(root, key, key)


def timed_export(root: str, scratch: Path, memory: str, threads: int) -> tuple[float, float]:
    """Seconds for the data shards, and for the whole folder with codes, metadata and validator."""
    writer = export._Hospital(catalog.load(root), "north", scratch, memory, threads)
    shards, spent = writer._shards, [0.0]

    def watched(bucket: int) -> None:
        started = time.perf_counter()
        shards(bucket)
        spent[0] += time.perf_counter() - started

    writer._shards = watched
    started = time.perf_counter()
    writer.write()
    return spent[0], time.perf_counter() - started


def bare(rows: Path, out: Path, connection: duckdb.DuckDBPyConnection) -> float:
    started = time.perf_counter()
    for file in sorted(rows.rglob("*.parquet")):
        target = out / file.relative_to(rows)
        target.parent.mkdir(parents=True, exist_ok=True)
        connection.execute(
            f"copy (from '{file}' order by {export.ORDER}) to '{target}' "
            "(format parquet, compression zstd, row_group_size 122880)"
        )
    return time.perf_counter() - started


def equal(one: Path, other: Path, connection: duckdb.DuckDBPyConnection) -> bool:
    """The same rows in the same order, by a hash of each row and its place."""

    def digest(folder: Path) -> list:
        return connection.execute(
            "select count(*), bit_xor(hash(subject_id, time, code, numeric_value, event_at, visit_id, file_row_number)) "
            f"from read_parquet('{folder}/**/*.parquet', filename = true, file_row_number = true) "
            "group by filename order by all"
        ).fetchall()

    return digest(one) == digest(other)


def measure(events: int, memory: str, threads: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        connection.execute(
            f"set memory_limit = '{memory}'; set threads = {threads}; set temp_directory = '{folder}/spill'"
        )
        root, scratch = f"{folder}/data", Path(folder, "scratch")
        write_events(root, events, connection)
        shards_s, whole_s = timed_export(root, scratch, memory, threads)
        written = scratch / "out" / "north" / "data"
        shuffled = Path(folder, "shuffled")
        for file in written.rglob("*.parquet"):
            target = shuffled / file.relative_to(written)
            target.parent.mkdir(parents=True, exist_ok=True)
            connection.execute(
                f"copy (from '{file}' order by hash(visit_id, event_at)) to '{target}' (format parquet, compression zstd)"
            )
        bare_s = bare(shuffled, Path(folder, "bare"), connection)
        if not equal(written, Path(folder, "bare"), connection):
            raise SystemExit("the export is not what a bare sort of its rows gives")
    return {
        "events": events,
        "threads": threads,
        "export_s": round(shards_s, 2),
        "bare_sort_and_write_s": round(bare_s, 2),
        "ratio_vs_bare_sort": round(shards_s / bare_s, 2),
        "whole_s": round(whole_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(json.dumps(measure(options.events, options.memory, options.threads)))


if __name__ == "__main__":
    main()
