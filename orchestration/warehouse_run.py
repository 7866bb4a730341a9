"""One making of the warehouse's tables with dbt, in a scratch folder: bucket by bucket, then what needs the whole set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from orchestration import catalog, dbt, dictionary, gem, input_layer
from orchestration.buckets import WHOLE, Buckets, Ends, bucket_of, fingerprint_of
from orchestration.tasks.models import WINDOWS

if TYPE_CHECKING:
    from orchestration.side_by_side import Cluster

Files = dict[int, list[str]]  # bucket to local files
ORDER = [
    "hospital", "patient_id", "event_at", "prediction_at", "stay_id", "visit_id", "hour", "step", "day",
    "as_of", "concept", "kind", "code_group", "task", "source_table", "code", "fate", "fate_reason",
    "row_id", "mapping_rank", "text", "criterion", "variant", "start_at", "known_at", "after_h", "last_h",
]  # fmt: skip


@dataclass
class Run:
    """One making of the tables, in a scratch folder; `out/<key>/bucket=<k>/` there holds what was made."""

    scratch: Path
    accepted: catalog.Catalog
    inputs: Sequence[str]
    models: Mapping[str, dict]
    memory: str
    threads: int
    project: Path
    cluster: Cluster | None = None  # where several buckets are made side by side

    def work(self) -> list[dbt.NodeResult]:
        """Every bucket that has changed, then what needs the whole set; stops after the first bucket with a failed test."""
        if self.cluster and len(self.buckets.made) > 1:
            results = self.cluster.make(self.buckets.made, self.scratch / "out")
        else:
            results = self._one_after_another()
        if any(r.failed for r in results):
            return results
        if len(self.buckets.all) == 1 and self.buckets.made:
            database = self.scratch / str(self.buckets.all[0]) / dbt.DATABASE
        else:
            database = self._database("whole")
            self._prepare(database, self.files)
            self._view_models(database)
        results += self._build(database, ["--select", "tag:whole_set"])
        if not any(r.failed for r in results):
            self._copy_out(database, 0, [key for key in self.models if key not in self.buckets.keys])
        return results

    def _one_after_another(self) -> list[dbt.NodeResult]:
        results: list[dbt.NodeResult] = []
        for bucket in self.buckets.made:
            results += self.make(bucket)
            if any(r.failed for r in results):
                break
            if len(self.buckets.all) > 1:
                (self.scratch / str(bucket) / dbt.DATABASE).unlink()
        return results

    def make(self, bucket: int) -> list[dbt.NodeResult]:
        """One bucket's tables into `out`, unless a test fails; its database stays."""
        database = self.prepared(bucket)
        results = self._build(database, ["--exclude", "tag:whole_set"])
        if not any(r.failed for r in results):
            keys = [key for key, node in self.models.items() if "whole_set" not in node["tags"]]
            self._copy_out(database, bucket, keys)
            if any(r.name == WINDOWS for r in results):
                with self._connect(database) as connection:
                    _copy(connection, f"steps.{WINDOWS}", "hospital", self.folder(WINDOWS), bucket)
        return results

    def prepared(self, bucket: int) -> Path:
        """A database in which the sources are one bucket's accepted files."""
        database = self._database(str(bucket))
        mine = {t: of if t in WHOLE else {bucket: of.get(bucket, [])} for t, of in self.files.items()}
        self._prepare(database, mine)
        return database

    @cached_property
    def files(self) -> dict[str, Files]:
        """Input table to its accepted files."""
        return {table: self._files(table) for table in input_layer.tables()}

    @cached_property
    def horizon(self) -> pa.Table:
        """How far each hospital's export reaches, over all buckets (hospital, last_event_at)."""
        reach = "max(greatest(event_at, coalesce(end_at, event_at))) as last_event_at"
        return self._told(
            f"select hospital, {reach} from visits group by hospital order by hospital", "visits"
        )

    @cached_property
    def icd_hospitals(self) -> pa.Table:
        """The hospitals with a diagnosis in ICD and whom they share persons with, over all buckets (hospital, person_group)."""
        icd = "regexp_full_match(upper(code_system), '(ICD.?)?(9|10).?(CM)?')"  # as harmonised/diagnoses reads it
        return self._told(
            f"""select distinct hospital, coalesce(person_group, hospital) as person_group
            from (select distinct hospital from diagnoses where {icd})
            left join (select distinct hospital, person_group from patients) using (hospital)
            order by all""",
            *("diagnoses", "patients"),
        )

    def _told(self, query: str, *tables: str) -> pa.Table:
        """A query over all buckets of these input tables."""
        with duckdb.connect() as connection:
            for table in tables:
                files = [file for of_bucket in self.files[table].values() for file in of_bucket]
                relation = _relation(files, input_layer.tables()[table])
                connection.execute(f"create view {table} as {relation}")
            return connection.sql(query).to_arrow_table()

    @cached_property
    def buckets(self) -> Buckets:
        """Which buckets are made tonight."""
        reaches = {row["hospital"]: row["last_event_at"] for row in self.horizon.to_pylist()}
        icd = self.icd_hospitals.to_pylist()  # what every bucket's labels ask
        code = catalog.fingerprint(code=fingerprint_of({}, self.project), icd_hospitals=icd)
        return Buckets(self.accepted, self.inputs, self.models, reaches, code)

    def _database(self, part: str) -> Path:
        folder = self.scratch / part
        folder.mkdir()
        return folder / dbt.DATABASE

    def _build(
        self, database: Path, selection: Sequence[str], leave_out: str = "unit_test"
    ) -> list[dbt.NodeResult]:
        arguments = [*selection, "--exclude-resource-type", leave_out]
        results = dbt.build(database, self.scratch, arguments, self.project, self.memory, self.threads)
        dbt.require_success(results)
        return results

    def _files(self, table: str) -> Files:
        """Local paths of a table's accepted files by bucket; files of a remote data root are fetched first."""
        by_bucket: Files = {}
        for key in self.inputs:
            if key.rsplit("/", 1)[1] != table:
                continue
            for url in self.accepted.files(key):
                by_bucket.setdefault(bucket_of(url), []).append(catalog.fetched(url, self.scratch))
        return by_bucket

    def _connect(self, database: Path) -> duckdb.DuckDBPyConnection:
        spill = self.scratch / "spill"
        settings = {"memory_limit": self.memory, "threads": self.threads, "temp_directory": str(spill)}
        return duckdb.connect(str(database), config=settings)

    def _prepare(self, database: Path, files: Mapping[str, Files]) -> None:
        """Sources of dbt: one view per input table over exactly its accepted files, and the computed dictionary."""
        with self._connect(database) as connection:
            connection.execute("create schema input; create schema dictionary")
            for table, columns in input_layer.tables().items():
                relation = _relation(
                    [file for of_bucket in files[table].values() for file in of_bucket], columns
                )
                connection.execute(f"create view input.{table} as {relation}")
            computed = dictionary.tables() | gem.tables()
            computed |= {"horizon": self.horizon, "icd_hospitals": self.icd_hospitals}
            for name, content in computed.items():
                connection.register("content", content)
                connection.execute(f"create table dictionary.{name} as select * from content")
                connection.unregister("content")

    def _view_models(self, database: Path) -> None:
        """The finished tables of all buckets: what tonight made and what stands."""
        with self._connect(database) as connection:
            for key in self.buckets.keys:
                node = self.models[key]
                connection.execute(f"create schema if not exists {node['schema']}")
                columns = {c["name"]: c["data_type"] for c in node["columns"].values()}
                files = sorted(map(str, self.folder(key).rglob("*.parquet")))
                published = [catalog.join(self.accepted.root, f["path"]) for f in self.buckets.kept(key)]
                files += [catalog.fetched(url, self.scratch) for url in published]
                connection.execute(
                    f"create view {node['schema']}.{node['name']} as {_relation(files, columns)}"
                )

    def _copy_out(self, database: Path, bucket: int, keys: Sequence[str]) -> None:
        with self._connect(database) as connection:
            for key in keys:
                node = self.models[key]
                order = ", ".join(c for c in ORDER if c in node["columns"])
                _copy(connection, f"{node['schema']}.{node['name']}", order, self.folder(key), bucket)

    def folder(self, key: str) -> Path:
        return self.scratch / "out" / key

    def rows(self, key: str) -> int:
        made = sum(pq.read_metadata(path).num_rows for path in self.folder(key).rglob("*.parquet"))
        return made + sum(f["rows"] for f in self.buckets.kept(key))

    def holds(self) -> dict[str, Ends]:
        """Bucket to hospital to the ends of its export between which the bucket's labels hold."""
        made: dict[int, Ends] = {}
        for path in self.folder(WINDOWS).rglob("*.parquet"):
            made[bucket_of(str(path))] = {
                row["hospital"]: [at and at.isoformat() for at in (row["holds_from"], row["holds_until"])]
                for row in pq.read_table(path, partitioning=None).to_pylist()
            }
        return self.buckets.holds(made)

    def fates(self) -> dict[str, dict[str, int]]:
        """hospital -> fate -> rows."""
        counts: dict[str, dict[str, int]] = {}
        for path in self.folder("harmonised/fates").rglob("*.parquet"):
            for row in pq.read_table(path, columns=["hospital", "fate", "rows"]).to_pylist():
                of_hospital = counts.setdefault(row["hospital"], {})
                of_hospital[row["fate"]] = of_hospital.get(row["fate"], 0) + row["rows"]
        return counts


def _copy(connection: duckdb.DuckDBPyConnection, table: str, order: str, folder: Path, bucket: int) -> None:
    path = folder / f"bucket={bucket}" / "data.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    connection.execute(
        f"copy (select * from {table} order by {order}) "
        f"to '{path}' (format parquet, compression zstd, row_group_size 122880)"
    )


def unit_tests(scratch: Path, project: Path = dbt.PROJECT) -> list[dbt.NodeResult]:
    """Run dbt's unit tests on empty sources and the computed dictionary; returns their results."""
    run = Run(scratch, catalog.Catalog("", {"accepted": {}}), [], {}, "500MB", 2, project)
    database = run._database("unit_tests")
    run._prepare(database, run.files)
    results = run._build(database, [], leave_out="test")
    return [result for result in results if result.unique_id.startswith("unit_test.")]


def _relation(files: Sequence[str], columns: Mapping[str, str]) -> str:
    """A select over exactly these files; a column that the contract gained after a file was written is null there."""
    none = "select " + ", ".join(f"cast(null as {t}) as {c}" for c, t in columns.items()) + " where false"
    if not files:
        return none
    names = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    read = f"select * from read_parquet([{names}], hive_partitioning = false, union_by_name = true)"
    return f"select {', '.join(columns)} from ({none} union all by name {read})"
