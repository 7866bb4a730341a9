"""No row is lost: every record of every raw file is in the input layer or rejected with a reason, and counted twice."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.expressions import literal, quoted
from orchestration.layout_words import Layout
from orchestration.raw_tables import FileRecord
from orchestration.raw_text import IngestError

ACCOUNTING = pa.schema(
    [
        ("raw_table", pa.string()),
        ("file", pa.string()),
        ("input_table", pa.string()),
        ("source", pa.int32()),
        ("rows_independent", pa.int64()),
        ("rows_in", pa.int64()),
        ("rows_rejected", pa.int64()),
    ]
)
# The reasons that speak of a damaged export or a wrong mapping, and what to do.
MENDS = {
    "broken_quotes": "check the quotes of the export",
    "undecodable_text": "set the encoding of its raw table, for example latin-1",
    "wrong_number_of_fields": "check the delimiter of its raw table and the quotes of the export",
    "unreadable": "correct the expression that reads the column, for example its date format",
    "missing": "map the column that holds the value, or ignore these rows for a reason",
    "duplicate_key": "correct the key of its raw table, or the export",
    "unknown_patient": "deliver the patients' file of the same day",
    "ends_before_it_starts": "correct the times, or the timezone and expressions that read them",
}


def accounting(connection, layout: Layout, records: dict[str, list[FileRecord]]) -> list[dict]:
    """One record a file and source: rows by the second reader, rows in the input table, rows rejected. A file that is
    only looked up has no input_table, and its rows_in are the rows that were staged."""
    lines = []
    for name, listed in records.items():
        sources = [(s.table, s.position) for s in layout.sources if s.raw_table == name] or [(None, None)]
        for table, position in sources:
            counted = _counts_by_file(connection, name, table, position)
            for number, record in enumerate(listed):
                rows_in, rejected = counted.get(number, (0, 0))
                lines.append(
                    {
                        "raw_table": name,
                        "file": record.path,
                        "input_table": table,
                        "source": None if position is None else position + 1,
                        "rows_independent": record.rows_independent,
                        "rows_in": rows_in,
                        "rows_rejected": rejected + record.rows_lost_before_mapping,
                    }
                )
    return lines


def _counts_by_file(
    connection, raw_table: str, table: str | None, position: int | None
) -> dict[int, tuple[int, int]]:
    if table is None:
        sql = f"select __file, count(*), 0 from raw.{quoted(raw_table)} group by __file"
    else:
        sql = (
            "select __file, count(*) filter (__reason is null), count(*) filter (__reason is not null) "
            f"from mapped.{quoted(table)} where __source = {position} group by __file"
        )
    return {number: (rows_in, rejected) for number, rows_in, rejected in connection.execute(sql).fetchall()}


def lost_rows(connection, accounting: list[dict], written: dict[str, int]) -> list[str]:
    """Sentences for every file and table whose rows do not add up; empty if none is lost."""
    lost = [
        f"{line['file']} has {line['rows_independent']} records by the second reader, but {line['rows_in']} came in "
        f"and {line['rows_rejected']} were rejected ({line['input_table'] or 'looked up'})"
        for line in accounting
        if line["rows_independent"] != line["rows_in"] + line["rows_rejected"]
    ]
    for table, rows in written.items():
        mapped = connection.execute(
            f"select count(*) from mapped.{quoted(table)} where __reason is null"
        ).fetchall()[0][0]
        if mapped != rows:
            lost.append(f"{table} was mapped to {mapped} rows, but {rows} were written")
    return lost


def write_rejected(
    connection, layout: Layout, records: dict[str, list[FileRecord]], folder: Path
) -> dict[str, int]:
    """Write where each rejected row stands and why, without its values; returns counts by reason."""
    connection.execute(
        "create table rejected (file varchar, raw_table varchar, row_number bigint, input_table varchar, reason varchar, "
        '"columns" varchar)'
    )
    for name, listed in records.items():
        damaged = [
            (r.path, name, reject.number, None, reject.reason, "") for r in listed for reject in r.rejects
        ]
        if damaged:
            connection.executemany("insert into rejected values (?, ?, ?, ?, ?, ?)", damaged)
    for source in layout.sources:
        paths = ", ".join(literal(r.path) for r in records[source.raw_table]) or "''"
        connection.execute(
            f"insert into rejected select ([{paths}])[__file + 1], {literal(source.raw_table)}, __row, "
            f"{literal(source.table)}, __reason, __columns from mapped.{quoted(source.table)} "
            f"where __source = {source.position} and __reason is not null"
        )
    file = folder / "data.parquet"
    file.parent.mkdir(parents=True)
    connection.execute(
        f"copy (from rejected order by file, row_number, input_table) to {literal(str(file))} (format parquet, compression zstd)"
    )
    return dict(
        connection.execute("select reason, count(*) from rejected group by reason order by reason").fetchall()
    )


def write(lines: list[dict], folder: Path) -> None:
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(lines, ACCOUNTING), folder / "data.parquet", compression="zstd")


def refuse_damage(connection, max_rejected: float, records: dict[str, list[FileRecord]]) -> None:
    """Hold back an export of which too many rows of one file are broken; what is ignored on purpose does not count."""
    broken = connection.execute(
        f"select raw_table, file, reason, count(*) from rejected where reason in {tuple(MENDS)} "
        "group by raw_table, file, reason, input_table order by input_table is not null, count(*) desc, file, reason"
    ).fetchall()
    size = {(name, r.path): r.rows_independent for name, listed in records.items() for r in listed}
    faults = [
        f"{file}: {rows} of {size[raw_table, file]} rows are rejected as {reason}, {MENDS[reason]}"
        for raw_table, file, reason, rows in broken
        if rows > max_rejected * size[raw_table, file]
    ]
    if faults:
        raise IngestError(
            f"more rows are broken than max_rejected {max_rejected:g} allows: {'; '.join(faults)}"
        )
