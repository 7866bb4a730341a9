"""One hospital's raw tables, mapped to the tables of the input layer in a scratch database, and written in buckets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration import input_layer, mapping
from orchestration.expressions import literal, quoted
from orchestration.hospitals import HospitalConfig
from orchestration.items_csv import Item
from orchestration.layout_words import Layout
from orchestration.raw_tables import FileRecord

_ITEM_COLUMNS = ("source_table", "code", "label", "unit", "concept", "decision", "reason", "mapped_by")


def map_all(connection, config: HospitalConfig, layout: Layout, records: dict[str, list[FileRecord]]) -> None:
    """Make `mapped.<table>` of every table of the input layer, and `persons` with the bucket of each patient."""
    place = mapping.Place(
        config.hospital,
        config.buckets,
        layout.tables.person_group or config.hospital,
        layout.tables.timezone,
        {name: [_prefix(layout, name, record) for record in listed] for name, listed in records.items()},
    )
    connection.execute("create schema mapped; create table opted_out (patient_id varchar)")
    if layout.opt_out:
        raw = quoted(layout.tables.opt_out.from_)
        connection.execute(
            f"insert into opted_out select distinct trim(cast({layout.opt_out.sql} as varchar)) from raw.{raw} as {raw}"
        )
    for table in input_layer.tables():
        mapping.create_mapped(connection, table)
        for source in layout.sources:
            if source.table == table:
                mapping.run_source(connection, layout, source, place)
        if table == "items":
            _merge_items(connection, config.hospital, layout.items)
        mapping.reject_repeated_keys(connection, table)
        if table == "patients":
            mapping.create_persons(connection, config.buckets)


def _prefix(layout: Layout, name: str, record: FileRecord) -> str:
    return f"{name}:" if layout.tables.raw[name].is_one_file else f"{name}/{record.stem}:"


def _merge_items(connection, hospital: str, items: Iterable[Item]) -> None:
    """Add the decisions of items.csv to the hospital's own dictionary; an item that it lacks is added as a row."""
    rows = [(hospital, *(i.values[c] or None for c in _ITEM_COLUMNS), i.row_id) for i in items]
    table = pa.table(
        [list(c) for c in zip(*rows, strict=True)] if rows else [[]] * (len(_ITEM_COLUMNS) + 2),
        names=["hospital", *_ITEM_COLUMNS, "row_id"],
    )
    decided = pa.table({n: table[n].cast(pa.string()) for n in table.column_names})
    connection.register("decided", decided)
    connection.execute("create table decided_items as from decided")
    connection.unregister("decided")
    connection.execute(
        """update mapped.items set concept = d.concept, decision = nullif(d.decision, ''), reason = d.reason,
             mapped_by = d.mapped_by, unit = coalesce(d.unit, items.unit), label = coalesce(items.label, d.label)
           from decided_items d where d.source_table = items.source_table and d.code = items.code"""
    )
    connection.execute(
        """insert into mapped.items (hospital, source_table, code, label, unit, concept, decision, reason, mapped_by, row_id,
             __bucket, __unreadable, __remarks)
           select hospital, source_table, code, label, unit, concept, decision, reason, mapped_by, row_id, 0, 0, 0
           from decided_items d where not exists
             (select 1 from mapped.items i where i.source_table = d.source_table and i.code = d.code and i.__reason is null)"""
    )


def write_table(connection, table: str, buckets: int, folder: Path) -> int:
    """Write a mapped table as `bucket=<k>/data.parquet`, sorted; returns how many rows."""
    columns = ", ".join(quoted(c) for c in input_layer.tables()[table])
    order = ", ".join(input_layer.sort_columns(table))
    mapped, written = f"mapped.{quoted(table)}", 0
    present = connection.execute(f"select distinct __bucket from {mapped} where __reason is null").fetchall()
    for bucket in sorted({row[0] for row in present} | {0}):
        file = folder / f"bucket={bucket}" / "data.parquet"
        file.parent.mkdir(parents=True)
        connection.execute(
            f"copy (select {columns} from {mapped} where __reason is null and __bucket = {bucket} order by {order}) "
            f"to {literal(str(file))} (format parquet, compression zstd, row_group_size 122880)"
        )
        written += pq.read_metadata(file).num_rows
    return written
