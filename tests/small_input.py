"""A small input layer from rows written in a test, entered in a catalog as an accepted hospital."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from orchestration import catalog, input_layer


def accept(
    root: str, hospital: str, tables: Mapping[str, Sequence[Mapping[str, object]]], buckets: int = 1
) -> None:
    """Write every input table of `hospital` (a missing one empty, a missing column null) and enter it as accepted.

    available_at is event_at unless a row says otherwise; a patient's bucket is the number in the id modulo `buckets`.
    """
    entries = {}
    for table, columns in input_layer.tables().items():
        content = [
            {
                "hospital": hospital,
                "row_id": f"{table}:{number}",
                **row,
                "available_at": row.get("available_at") or row.get("event_at"),
            }
            for number, row in enumerate(tables.get(table, ()), start=1)
        ]
        fingerprint = catalog.fingerprint(table=table, content=content)
        files = []
        for bucket in range(buckets):
            path = f"input/{hospital}/{table}/bucket={bucket}/{fingerprint[:12]}.parquet"
            mine = [
                row
                for row in content
                if int("0" + "".join(filter(str.isdigit, row.get("patient_id", "")))) % buckets == bucket
            ]
            (Path(root) / path).parent.mkdir(parents=True, exist_ok=True)
            write(Path(root) / path, columns, mine)
            digest = catalog.sha256_of(Path(root) / path)
            files.append({"path": path, "rows": len(mine), "sha256": digest})
        entries[f"input/{hospital}/{table}"] = {
            "version": fingerprint[:12],
            "fingerprint": fingerprint,
            "files": files,
            "inputs": {},
            "metadata": {},
            "run_id": "test",
            "published_at": "2150-01-01T00:00:00+00:00",
        }
    with catalog.edit(root) as catalog_content:
        catalog_content["accepted"].update(entries)


def write(path: Path, columns: Mapping[str, str], rows: Sequence[Mapping[str, object]]) -> None:
    unknown = {name for row in rows for name in row} - set(columns) - {"available_at"}
    assert not unknown, f"{path}: not in the contract: {sorted(unknown)}"
    with duckdb.connect() as connection:
        connection.execute(f"create table t ({', '.join(f'{c} {t}' for c, t in columns.items())})")
        if rows:
            values = [[row.get(column) for column in columns] for row in rows]
            connection.executemany(f"insert into t values ({', '.join('?' * len(columns))})", values)
        connection.execute(f"copy t to '{path}' (format parquet)")


def rows(root: str, key: str, order: str = "all") -> list[dict[str, object]]:
    """The published rows of an asset."""
    files = ", ".join(f"'{file}'" for file in catalog.load(root).files(key))
    with duckdb.connect() as connection:
        relation = connection.execute(
            f"select * from read_parquet([{files}], hive_partitioning = false) order by {order}"
        )
        names = [column[0] for column in relation.description]
        return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]
