"""The files of an export: found, told apart, counted by a second reader, and staged as text columns in DuckDB.

DuckDB parses strictly. A file that it refuses is read again record by record, so that each bad record is rejected with
its number and a reason and each good one is kept. The second reader (`count_records`) shares no code with either: it
counts line ends outside quotes, or the footer of a Parquet file.
"""

from __future__ import annotations

import csv
import difflib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from orchestration import catalog
from orchestration.expressions import literal, quoted
from orchestration.layout_words import Layout, RawTable
from orchestration.raw_text import IngestError, RawFile, open_text, records_of

# The encodings that DuckDB itself decodes; any other of Python's is read record by record.
DUCKDB_ENCODINGS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "ascii": "utf-8",
    "latin-1": "latin-1",
    "iso-8859-1": "latin-1",
}
BATCH = 50_000


@dataclass(frozen=True)
class Reject:
    """A record that could not be staged: its 1-based number among the file's data records, and why."""

    number: int
    reason: str


@dataclass
class Staged:
    """A file as a DuckDB table of text columns with its record number in `__row`."""

    file: RawFile
    table: str
    rows: int
    columns: list[str]
    rejects: list[Reject] = field(default_factory=list)


def locate(location: str, layout: Layout) -> dict[str, list[RawFile]]:
    """The files of each raw table that the layout reads, in the order of their names.

    Raises IngestError for a location or file that is not there; an optional raw table may have none.
    """
    fs, base = fsspec.core.url_to_fs(location)
    if not fs.isdir(base):
        raise IngestError(
            f"the location {location} is not there; correct location (or its variable) of the hospital"
        )
    files: dict[str, list[RawFile]] = {}
    identity = cache(lambda path: _identity(fs, f"{base}/{path}"))
    for name in layout.reads:
        raw = layout.tables.raw[name]
        paths = [p for pattern in raw.paths for p in _matches(fs, base, pattern)]
        if not paths and not raw.optional and raw.delivery == "full":
            raise IngestError(
                f"{location}/{raw.paths[0]} is not there (raw.{name}.path); {_mend_path(fs, base, raw.paths[0])}"
            )
        files[name] = [
            RawFile(name, path, catalog.join(location, path), identity(path)) for path in sorted(paths)
        ]
        stems = [f.stem for f in files[name]]
        if len(set(stems)) < len(stems):
            raise IngestError(
                f"{location}: two files of raw.{name} have the same name without suffix; rename one"
            )
    return files


def _matches(fs: fsspec.AbstractFileSystem, base: str, pattern: str) -> list[str]:
    if "*" not in pattern:
        return [pattern] if fs.isfile(f"{base}/{pattern}") else []
    root = base.rstrip("/") + "/"
    return [p.split(root, 1)[-1] for p in fs.glob(f"{base}/{pattern}")]


def _mend_path(fs: fsspec.AbstractFileSystem, base: str, path: str) -> str:
    """The nearest file name of the export; names of files are no patients' data."""
    there = [
        p.split(base.rstrip("/") + "/", 1)[-1] for p in itertools.islice(fs.find(base, maxdepth=3), 2000)
    ]
    near = difflib.get_close_matches(path, there, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "deliver it, correct the path, or set optional: true"


def _identity(fs: fsspec.AbstractFileSystem, path: str) -> str:
    info = fs.info(path)
    for key in ("ETag", "etag", "md5Hash", "content_md5"):
        if info.get(key):
            return f"{info['size']}:{key}:{info[key]}"
    return f"{info['size']}:sha256:{catalog.sha256_of(fs.unstrip_protocol(path))}"


def fetch(file: RawFile, scratch: Path) -> Path:
    """A local path of the file: its own on a local disk, else a copy in the scratch folder."""
    if catalog.is_local(file.url):
        return Path(file.url)
    target = scratch / f"fetched-{file.raw_table}-{file.path.rsplit('/', 1)[-1]}"
    fs, path = fsspec.core.url_to_fs(file.url)
    fs.get_file(path, str(target))
    return target


def header(file: RawFile, local: Path, raw: RawTable, needed: set[str]) -> list[str]:
    """The file's column names, checked: each needed column is there. Raises IngestError naming file, key and mend."""
    if file.is_parquet:
        try:
            names = pq.read_schema(local).names
        except (pa.ArrowException, OSError):
            raise IngestError(f"{file.url} is no readable Parquet file; deliver it again") from None
    else:
        with open_text(local, file, raw, errors="replace") as lines:
            names = next(csv.reader(lines, delimiter=raw.delimiter), [])
    if not names:
        raise IngestError(f"{file.url} is empty, it has not even a header; deliver it again")
    folded = [n.strip().lower() for n in names]
    if len(set(folded)) < len(folded):
        raise IngestError(
            f"{file.url} has two columns of the same name in its header; deliver it with distinct names"
        )
    missing = sorted(c for c in needed if c.lower() not in folded)
    if missing and len(names) == 1:
        other = [d for d in ",;|\t" if d != raw.delimiter and d in names[0]]
        mend = f"set raw.{file.raw_table}.delimiter to {other[0]!r}" if other else "check it"
        raise IngestError(f"{file.url} has one column only if parted by {raw.delimiter!r}; {mend}")
    if missing:
        near = difflib.get_close_matches(missing[0].lower(), folded, n=1, cutoff=0.7)
        mend = f"did you mean {near[0]}?" if near else "deliver it with this column, or change the mapping"
        raise IngestError(
            f"{file.url} lacks the column {missing[0]} that raw.{file.raw_table} needs "
            f"({len(missing)} of {len(needed)} are missing, the header has {len(names)}); {mend}"
        )
    return names


def stage(
    connection: duckdb.DuckDBPyConnection,
    file: RawFile,
    local: Path,
    raw: RawTable,
    needed: set[str],
    name: str,
    scratch: Path,
) -> Staged:
    """Load the needed columns (all columns for append and upsert) of one file into the view `parts.<name>`.

    Raises IngestError for a file that cannot be read at all.
    """
    names = header(file, local, raw, needed)
    folded = {c.lower() for c in needed}
    wanted = [n for n in names if raw.delivery != "full" or n.strip().lower() in folded]
    expression = "cast({} as varchar)" if file.is_parquet else "{}"
    select = ", ".join(f"{expression.format(quoted(n))} as {quoted(n.strip())}" for n in wanted)
    table, number, rejects = f"parts.{quoted(name + '_rows')}", "rowid + 1", []
    try:
        if file.is_parquet:
            source = f"read_parquet({literal(str(local))}, hive_partitioning = false)"
        else:
            source = _read_csv(local, names, raw)
        if source:
            connection.execute(f"create table {table} as select {select} from {source}")
    except duckdb.InvalidInputException:
        source = None
    except duckdb.Error as error:
        kind = type(error).__name__
        raise IngestError(
            f"{file.url} cannot be read ({kind}): truncated or damaged; deliver it again"
        ) from None
    if source is None:
        if file.is_parquet:
            raise IngestError(f"{file.url} is no readable Parquet file; deliver it again")
        clean = scratch / f"{name}.parquet"
        rejects = _sift(file, local, raw, names, wanted, clean)
        connection.execute(f"create table {table} as from read_parquet({literal(str(clean))})")
        clean.unlink()
        number = "__number"
    listed = ", ".join(quoted(n.strip()) for n in wanted)
    connection.execute(f"create view parts.{quoted(name)} as select {listed}, {number} as __row from {table}")
    rows = connection.execute(f"select count(*) from {table}").fetchall()[0][0]
    return Staged(file, f"parts.{quoted(name)}", rows, [n.strip() for n in wanted], rejects)


def _read_csv(local: Path, names: Sequence[str], raw: RawTable) -> str | None:
    """DuckDB's strict reader; None where a file must be read record by record: rare encodings, blank-line ambiguity."""
    encoding = DUCKDB_ENCODINGS.get(raw.encoding.lower())
    if encoding is None or len(names) == 1:
        return None
    columns = ", ".join(f"{literal(n)}: 'VARCHAR'" for n in names)
    return (
        f"read_csv({literal(str(local))}, header = true, auto_detect = false, columns = {{{columns}}}, nullstr = '', "
        f"delim = {literal(raw.delimiter)}, quote = '\"', escape = '\"', strict_mode = true, encoding = {literal(encoding)})"
    )


def _sift(
    file: RawFile, local: Path, raw: RawTable, names: Sequence[str], wanted: Sequence[str], clean: Path
) -> list[Reject]:
    """Write the good records to a Parquet file and return the bad ones."""
    positions = [names.index(n) for n in wanted]
    schema = pa.schema([(n.strip(), pa.string()) for n in wanted] + [("__number", pa.int64())])
    rejects: list[Reject] = []
    with (
        open_text(local, file, raw, errors="surrogateescape") as lines,
        pq.ParquetWriter(clean, schema) as writer,
    ):
        records = (r for r in records_of(lines, raw, file) if r != [])
        next(records, None)
        good = _good(records, len(names), rejects)
        while batch := list(itertools.islice(good, BATCH)):
            columns = [[record[p] or None for _, record in batch] for p in positions]
            writer.write_batch(pa.record_batch([*columns, [number for number, _ in batch]], schema=schema))
    return rejects


def _good(
    records: Iterator[list[str] | None], width: int, rejects: list[Reject]
) -> Iterator[tuple[int, list[str]]]:
    for number, record in enumerate(records, start=1):
        if record is None:
            rejects.append(Reject(number, "broken_quotes"))
        elif len(record) != width:
            rejects.append(Reject(number, "wrong_number_of_fields"))
        elif any(not cell.isascii() and re.search("[\ud800-\udfff]", cell) for cell in record):
            rejects.append(Reject(number, "undecodable_text"))
        else:
            yield number, record
