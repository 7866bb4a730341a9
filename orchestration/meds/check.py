"""Judge a whole MEDS folder, whoever wrote it: `python -m orchestration.meds.check <folder> [--labels <folder>]`.

The `meds` package validates one table at a time. This looks at what makes tables a dataset: a subject lies in one file,
contiguous and sorted by time with static rows first; every code is described; every subject has a split; times carry no
zone; no label is later than the day of its subject's last event. Memory stays at one row group and one row a subject.

Exit code 0: valid; 1: faults, one line each with file and mend, counts only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import meds
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

LABELS = "labels"
DAY_US = 86_400_000_000
NEVER = np.iinfo(np.int64).min


@dataclass
class Report:
    """Faults, each one line that names a file and how to mend it, and what was counted on the way."""

    faults: list[str] = field(default_factory=list)
    rows: int = 0
    subjects: int = 0
    codes: int = 0
    labels: int = 0

    def add(self, file: str | Path, what: str) -> None:
        self.faults.append(f"{file}: {what}")


@dataclass
class _Shard:
    """What is kept of a shard: its subjects, each subject's last time in microseconds (NEVER if all static), its codes."""

    name: str
    subjects: np.ndarray
    last: np.ndarray
    codes: set[str]


def check(folder: Path | str, labels: Path | str | None = None) -> Report:
    """Judge the dataset in `folder` and, where there are any, the label files below `labels` (default `folder/labels`)."""
    folder, report = Path(folder), Report()
    files = sorted((folder / meds.data_subdirectory).rglob("*.parquet"))
    if not files:
        report.add(
            "data", "holds no Parquet file; write the shards below data/, or name the folder that holds data/"
        )
    shards = [s for file in files if (s := _shard(file, file.relative_to(folder).as_posix(), report))]
    known, last = _subjects(shards, report)
    _codes(folder, shards, report)
    _splits(folder, known, report)
    _dataset(folder, report)
    for file in sorted((Path(labels) if labels else folder / LABELS).rglob("*.parquet")):
        name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)
        _labels(file, name, known, last, report)
    report.subjects = len(known)
    return report


def _shard(file: Path, name: str, report: Report) -> _Shard | None:
    """Stream one shard. None if its schema leaves nothing to look at."""
    table = _schema(file, name, meds.DataSchema, report)
    if table is None:
        return None
    subjects, lasts, codes = [], [], set()
    previous, unsorted, rows = None, 0, 0
    for batch in pq.ParquetFile(file).iter_batches(columns=["subject_id", "time", "code"]):
        if not len(batch):
            continue
        rows += len(batch)
        nulls = [c for c in ("subject_id", "code") if batch[c].null_count]
        if nulls:
            report.add(name, f"{' and '.join(nulls)} is null in some rows; every row needs both")
            return None
        subject = batch["subject_id"].to_numpy()
        time = pc.fill_null(batch["time"].cast(pa.int64()), NEVER).to_numpy()
        codes.update(pc.unique(batch["code"]).to_pylist())
        goes_on = int(previous is not None and previous[0] == subject[0])
        unsorted += bool(goes_on and time[0] < previous[1])
        unsorted += int(((subject[1:] == subject[:-1]) & (time[1:] < time[:-1])).sum())
        starts = np.flatnonzero(np.concatenate([[True], subject[1:] != subject[:-1]]))
        latest = np.maximum.reduceat(time, starts)
        if goes_on:
            lasts[-1] = max(lasts[-1], latest[0])
        subjects += subject[starts][goes_on:].tolist()
        lasts += latest[goes_on:].tolist()
        previous = (subject[-1], time[-1])
    report.rows += rows
    if unsorted:
        report.add(
            name,
            f"{unsorted} rows are earlier than the row before them; sort by subject_id and time, nulls first",
        )
    unique, counts = np.unique(np.array(subjects, np.int64), return_counts=True)
    if torn := int((counts > 1).sum()):
        report.add(name, f"{torn} subjects are not contiguous; sort by subject_id and time")
    latest = np.full(len(unique), NEVER)
    np.maximum.at(latest, np.searchsorted(unique, subjects), np.array(lasts, np.int64))
    return _Shard(name, unique, latest, codes)


def _schema(file: Path, name: str, schema: type, report: Report) -> pa.Table | None:
    """An empty table of the file's columns if they satisfy the schema of the `meds` package, else None and a fault."""
    try:
        found = pq.read_schema(file)
    except (pa.ArrowInvalid, OSError):
        report.add(name, "is no Parquet file; write it again")
        return None
    for column in found:
        if pa.types.is_timestamp(column.type) and column.type.tz:
            report.add(
                name,
                f"{column.name} carries the zone {column.type.tz}; write naive timestamps in microseconds",
            )
            return None
    table = found.remove_metadata().empty_table()
    try:
        schema.validate(table)
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        report.add(name, f"is not a {schema.__name__} table ({said}); mend its columns and types")
        return None
    return table


def _subjects(shards: list[_Shard], report: Report) -> tuple[np.ndarray, np.ndarray]:
    """All subjects, sorted, and each one's last time."""
    everyone = np.concatenate([s.subjects for s in shards]) if shards else np.array([], np.int64)
    known, where, counts = np.unique(everyone, return_inverse=True, return_counts=True)
    if twice := int((counts > 1).sum()):
        files = [s.name for s in shards if (counts[np.searchsorted(known, s.subjects)] > 1).any()]
        report.add(
            ", ".join(files), f"{twice} subjects lie in more than one file; shard by subject, not by row"
        )
    last = np.full(len(known), NEVER)
    if shards:
        np.maximum.at(last, where, np.concatenate([s.last for s in shards]))
    return known, last


def _read(folder: Path, path: str, schema: type, report: Report, mend: str) -> pa.Table | None:
    file = folder / path
    if not file.is_file():
        report.add(path, f"is missing; {mend}")
        return None
    return None if _schema(file, path, schema, report) is None else pq.read_table(file)


def _codes(folder: Path, shards: list[_Shard], report: Report) -> None:
    path = meds.code_metadata_filepath
    table = _read(
        folder, path, meds.CodeMetadataSchema, report, "list every code of data/ in it, one row a code"
    )
    used: set[str] = set().union(*(s.codes for s in shards))
    report.codes = len(used)
    if table is None:
        return
    if table["code"].null_count:
        report.add(path, "code is null in some rows; remove them")
    if missing := used - set(table["code"].to_pylist()):
        report.add(path, f"{len(missing)} codes of data/ are not listed; add a row for each")


def _splits(folder: Path, known: np.ndarray, report: Report) -> None:
    path = meds.subject_splits_filepath
    table = _read(folder, path, meds.SubjectSplitSchema, report, "give every subject of data/ a split")
    if table is None:
        return
    if any(column.null_count for column in table.columns):
        report.add(path, "holds nulls; every row needs subject_id and split")
        return
    listed, counts = np.unique(table["subject_id"].to_numpy(), return_counts=True)
    if twice := int((counts > 1).sum()):
        report.add(path, f"{twice} subjects are listed more than once; give each one split")
    if missing := int((~np.isin(known, listed)).sum()):
        report.add(path, f"{missing} subjects of data/ have no split; add a row for each")


def _dataset(folder: Path, report: Report) -> None:
    path = meds.dataset_metadata_filepath
    if not (folder / path).is_file():
        report.add(path, "is missing; write at least dataset_name and meds_version")
        return
    try:
        meds.DatasetMetadataSchema.validate(json.loads((folder / path).read_text(encoding="utf-8")))
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        report.add(path, f"is not what DatasetMetadataSchema asks for ({said}); mend that key")


def _labels(file: Path, name: str, known: np.ndarray, last: np.ndarray, report: Report) -> None:
    if _schema(file, name, meds.LabelSchema, report) is None:
        return
    table = pq.read_table(file)
    report.labels += table.num_rows
    if any(column.null_count for column in table.columns):
        report.add(name, "holds nulls; leave out a column, or the row, that has no value")
        return
    subject = table["subject_id"].to_numpy()
    stranger = ~np.isin(subject, known)
    if stranger.any():
        report.add(name, f"{int(stranger.sum())} labels belong to no subject of data/; drop them")
    at = table["prediction_time"].cast(pa.int64()).to_numpy()[~stranger]
    latest = last[np.searchsorted(known, subject[~stranger])]
    if late := int((at // DAY_US > latest // DAY_US).sum()):
        report.add(
            name,
            f"{late} labels are later than the day of their subject's last event; drop them or mend the time",
        )


def lines(report: Report) -> Iterator[str]:
    yield from report.faults
    counted = f"{report.rows} rows, {report.subjects} subjects, {report.codes} codes, {report.labels} labels"
    yield f"{'not a valid MEDS dataset' if report.faults else 'a valid MEDS dataset'}: {counted}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder that holds data/ and metadata/")
    parser.add_argument("--labels", type=Path, help="folder of label files, by default <folder>/labels")
    options = parser.parse_args(arguments)
    report = check(options.folder, options.labels)
    for line in lines(report):
        print(line, file=sys.stderr if report.faults else sys.stdout)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
