"""The raw tables of one night in DuckDB: tonight's files, and what earlier deliveries left.

`raw.<table>` has the columns that the mapping reads as text, `__file` (which file), `__row` (its record number there)
and `__repeated` (a later row with the same key); `once.<table>` leaves the repeated rows out, for look-ups.
A table delivered as `append` or `upsert` is kept as Parquet under the key `raw/<hospital>/<table>`, all columns, so that
the hospital need not deliver old files again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import fsspec
import pyarrow.parquet as pq

from orchestration import catalog
from orchestration.expressions import literal, quoted
from orchestration.layout_words import Layout, RawTable
from orchestration.raw_files import Reject, fetch, stage
from orchestration.raw_text import IngestError, RawFile
from orchestration.second_reader import count_records


@dataclass
class FileRecord:
    """What is known of one file of a raw table. `rejected` and `removed` are counts by reason."""

    path: str
    stem: str
    identity: str
    rows_independent: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    tonight: bool = True

    @property
    def rows_lost_before_mapping(self) -> int:
        return sum(self.rejected.values()) + sum(self.removed.values())

    def to_keep(self) -> dict:
        kept = ("path", "stem", "identity", "rows_independent", "rejected", "removed")
        return {name: getattr(self, name) for name in kept}


def key(hospital: str, raw_table: str) -> str:
    return f"raw/{hospital}/{raw_table}"


def known_files(accepted: catalog.Catalog, hospital: str, raw_table: str) -> list[FileRecord]:
    """The files of earlier deliveries whose rows are kept."""
    entry = accepted.accepted.get(key(hospital, raw_table))
    return [FileRecord(**record, tonight=False) for record in entry["metadata"]["files"]] if entry else []


def load(
    connection: duckdb.DuckDBPyConnection,
    layout: Layout,
    files: dict[str, list[RawFile]],
    accepted: catalog.Catalog,
    hospital: str,
    scratch: Path,
) -> dict[str, list[FileRecord]]:
    """Stage every raw table that the layout reads; returns its files, in the order of `__file`.

    Raises IngestError naming file and mend.
    """
    connection.execute("create schema raw; create schema once; create schema parts; create schema kept")
    records: dict[str, list[FileRecord]] = {}
    with ThreadPoolExecutor(max_workers=1) as second_reader:
        for name, found in files.items():
            raw = layout.tables.raw[name]
            before = known_files(accepted, hospital, name) if raw.delivery != "full" else []
            tonight = [f for f in found if f.identity not in {r.identity for r in before if r.path == f.path}]
            again = {f.path for f in tonight}
            every = [r for r in before if r.path not in again]
            if every:
                _recall_rejects(connection, accepted, hospital, name, every, scratch)
            every += [FileRecord(f.path, f.stem, f.identity) for f in tonight]
            records[name] = sorted(every, key=lambda r: r.path)
            parts = _stage_all(
                connection, raw, tonight, records[name], layout.reads[name], scratch, second_reader
            )
            if raw.delivery != "full":
                parts += _kept_part(connection, accepted, key(hospital, name), records[name], scratch)
            _create_views(connection, layout, name, raw, parts, records[name])
    return records


def _recall_rejects(
    connection, accepted, hospital: str, name: str, records: list[FileRecord], scratch
) -> None:
    """The records of files delivered earlier that could not be staged then, from the accepted account of them."""
    (url,) = accepted.files(f"input/{hospital}/rejected")
    table = pq.read_table(
        catalog.fetched(url, scratch), columns=["file", "raw_table", "row_number", "input_table", "reason"]
    )
    by_path = {record.path: record for record in records}
    for row in table.to_pylist():
        if row["input_table"] is None and row["raw_table"] == name and row["file"] in by_path:
            by_path[row["file"]].rejects.append(Reject(row["row_number"], row["reason"]))


def _stage_all(connection, raw: RawTable, tonight, records, needed, scratch, second_reader) -> list[str]:
    """Stage tonight's files; returns one select a file with all its columns, `__file` and `__row`."""
    by_path = {record.path: (number, record) for number, record in enumerate(records)}
    parts = []
    for file in tonight:
        number, record = by_path[file.path]
        local = fetch(file, scratch)
        counting = second_reader.submit(count_records, file, local, raw)
        staged = stage(connection, file, local, raw, needed, f"{file.raw_table}__{number}", scratch)
        record.rows_independent = counting.result()
        if record.rows_independent != staged.rows + len(staged.rejects):
            record.rows_independent = count_records(file, local, raw, thorough=True)
        if not catalog.is_local(file.url):
            local.unlink()
        if not staged.rows and raw.delivery == "full" and not raw.optional:
            raise IngestError(
                f"{file.url} has no row that can be read; deliver it again, or set raw.{file.raw_table}.optional: true"
            )
        record.rejects = staged.rejects
        for reject in staged.rejects:
            record.rejected[reject.reason] = record.rejected.get(reject.reason, 0) + 1
        parts.append(f"select *, {number} as __file from {staged.table}")
    return parts


def _kept_part(connection, accepted, kept_key: str, records: list[FileRecord], scratch: Path) -> list[str]:
    """A select over the accepted rows of earlier deliveries, without files that were delivered again."""
    if kept_key not in accepted.accepted:
        return []
    local = []
    for number, url in enumerate(accepted.files(kept_key)):
        target = scratch / f"{kept_key.replace('/', '-')}-{number}.parquet"
        fs, path = fsspec.core.url_to_fs(url)
        fs.get_file(path, str(target))
        local.append(literal(str(target)))
    numbers = " ".join(
        f"when {literal(r.path)} then {number}" for number, r in enumerate(records) if not r.tonight
    )
    if not numbers:
        return []
    return [
        f"select * exclude (__path), case __path {numbers} end as __file "
        f"from read_parquet([{', '.join(local)}]) where __file is not null"
    ]


def _create_views(
    connection, layout: Layout, name: str, raw: RawTable, parts: list[str], records: list[FileRecord]
) -> None:
    needed = sorted(layout.reads[name])
    if not parts:
        empty = ", ".join(f"null::varchar as {quoted(c)}" for c in needed)
        parts = [f"select {empty + ', ' if empty else ''}0::bigint as __row, 0 as __file limit 0"]
    together = " union all by name ".join(f"({part})" for part in parts)
    if raw.delivery == "full":
        connection.execute(f"create view parts.{quoted(name)} as {together}")
    else:
        _accumulate(connection, layout, name, raw, together, records)
    repeated = _repeated_rows(connection, name, raw)
    join = f"left join parts.{quoted(name + '_repeated')} as again using (__file, __row)" if repeated else ""
    listed = ", ".join(f"rows.{quoted(c)}" for c in needed) + (", " if needed else "")
    flag = "again.found is not null" if repeated else "false"
    connection.execute(
        f"create view raw.{quoted(name)} as select {listed}rows.__file, rows.__row, {flag} as __repeated "
        f"from parts.{quoted(name)} as rows {join}"
    )
    connection.execute(f"create view once.{quoted(name)} as from raw.{quoted(name)} where not __repeated")


def _repeated_rows(connection, name: str, raw: RawTable) -> bool:
    """Note the rows whose key an earlier row has; keys with an empty part are nobody's repetition."""
    if not raw.key or raw.delivery == "upsert":
        return False
    keys = ", ".join(quoted(k) for k in raw.key)
    present = " and ".join(f"{quoted(k)} is not null" for k in raw.key)
    place = "__file::hugeint * 9223372036854775807 + __row"
    connection.execute(
        f"""create table parts.{quoted(name + "_repeated")} as
        with again as (select {keys}, min({place}) as first from parts.{quoted(name)} where {present}
                       group by {keys} having count(*) > 1)
        select __file, __row, true as found from parts.{quoted(name)} join again using ({keys}) where {place} > first"""
    )
    return connection.execute(f"select count(*) from parts.{quoted(name + '_repeated')}").fetchall()[0][0] > 0


def _accumulate(
    connection, layout: Layout, name: str, raw: RawTable, together: str, records: list[FileRecord]
) -> None:
    """Make `kept.<table>`: all deliveries, of each key the last row; count what is removed.

    Of a deleted row the md5 of its key stays, as `__deleted`, so that an older delivery that comes late cannot bring it back.
    """
    kept = f"kept.{quoted(name)}"
    connection.execute(
        f"create table {kept} as {together} union all by name (select null::varchar as __deleted where false)"
    )
    if raw.delivery == "upsert":
        keys = ", ".join(f"coalesce({quoted(k)}, chr(30))" for k in raw.key)
        identity = f"coalesce(__deleted, md5(concat_ws(chr(31), {keys})))"
        place = "__file::hugeint * 9223372036854775807 + __row"
        last = f"select max({place}) from {kept} group by {identity}"
        remove(connection, name, records, "superseded", f"{place} not in ({last})")
        if name in layout.deleted:
            condition = layout.deleted[name].sql.replace(f"{quoted(name)}.", "")
            condition = f"__deleted is null and coalesce(({condition}), false)"
            _count(connection, name, records, "deleted", condition)
            columns = connection.execute(f"describe {kept}").fetchall()
            emptied = [c[0] for c in columns if c[0] not in ("__file", "__row", "__deleted")]
            connection.execute(
                f"update {kept} set __deleted = {identity}, {', '.join(f'{quoted(c)} = null' for c in emptied)} "
                f"where {condition}"
            )
    connection.execute(
        f"create view parts.{quoted(name)} as select * exclude (__deleted) from {kept} where __deleted is null"
    )


def remove(connection, name: str, records: list[FileRecord], reason: str, condition: str) -> None:
    """Take rows out of `kept.<table>` and count them at their files."""
    _count(connection, name, records, reason, condition)
    connection.execute(f"delete from kept.{quoted(name)} where {condition}")


def _count(connection, name: str, records: list[FileRecord], reason: str, condition: str) -> None:
    """Count rows at their files; a row that was deleted in an earlier night has been counted then."""
    counted = connection.execute(
        f"select __file, count(*) from kept.{quoted(name)} where __deleted is null and ({condition}) group by __file"
    ).fetchall()
    for number, rows in counted:
        records[number].removed[reason] = records[number].removed.get(reason, 0) + rows


def write_kept(connection, name: str, records: list[FileRecord], folder: Path) -> None:
    """Write the accumulated rows for the next night, with the path of their file instead of its number."""
    folder.mkdir(parents=True)
    paths = ", ".join(literal(r.path) for r in records) or "''"
    connection.execute(
        f"copy (select * exclude (__file), ([{paths}])[__file + 1] as __path from kept.{quoted(name)} "
        f"order by __file, __row) to {literal(str(folder / 'data.parquet'))} (format parquet, compression zstd)"
    )
