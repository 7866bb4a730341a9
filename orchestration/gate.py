"""The gate: Great Expectations suites, kept as YAML in `expectations/`, judge exactly the Parquet files they are given.

A suite is a named list of sentences. Its verdict carries counts, never a patient's value: results are asked for without
lists of values, whatever is left besides counts is dropped, and an expectation that raises is a failure of a kind, its
text unread. `catalog.publish` asks the gate about every candidate; `ExpectationGate` asks it about what is published.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import fsspec

from orchestration import catalog, data_docs
from orchestration.suites import (
    Rule,
    Suite,
    expectation,
    great_expectations_module,
    has_suite,
    load_suite,
    suite_path,
)

__all__ = ["Result", "Verdict", "changed_files", "has_suite", "judge"]

COUNTS = frozenset({"element_count", "unexpected_count", "missing_count", "unexpected_percent"})
OBSERVED_IS_A_COUNT = frozenset(
    {
        "expect_table_row_count_to_be_between",
        "expect_table_row_count_to_equal",
        "expect_table_column_count_to_equal",
        "expect_table_column_count_to_be_between",
        "expect_column_unique_value_count_to_be_between",
        "expect_column_proportion_of_unique_values_to_be_between",
        "expect_column_proportion_of_non_null_values_to_be_between",
        "unexpected_rows_expectation",
    }
)
# Tables whose rows are counts and words of our own: what fails is said in full, by their column `what`.
OF_COUNTS = frozenset({"drift"})
SAID = 6
SAYING = "saying.duckdb"


@dataclass(frozen=True)
class Result:
    """How one expectation went. `failure` is None, `rows`, `missing_column`, or `raised <class of the error>`."""

    says: str
    type: str
    columns: tuple[str, ...]
    passed: bool
    failure: str | None = None
    checked: int | None = None
    unexpected: int | None = None
    observed: float | None = None
    found: tuple[str, ...] = ()

    def line(self) -> str:
        if self.passed:
            return self.says
        if self.found:
            more = len(self.found) - SAID
            return f"{self.says} ({'; '.join(self.found[:SAID])}{f'; and {more} more' if more > 0 else ''})"
        if self.failure != "rows":
            return f"{self.says} ({self.failure})"
        if self.unexpected is not None:
            of = f" of {self.checked}" if self.checked is not None else ""
            return f"{self.says} ({self.unexpected}{of} rows)"
        return self.says if self.observed is None else f"{self.says} (found {self.observed:g})"


@dataclass(frozen=True)
class Verdict:
    """What a suite says about one table: counts only. `page` is the Data Docs page, likewise without values."""

    key: str
    suite: str
    blocking: bool
    passed: bool
    rows: int
    results: tuple[Result, ...]
    page: str = field(default="", repr=False)

    @property
    def failures(self) -> list[Result]:
        return [r for r in self.results if not r.passed]

    def line(self) -> str:
        """One line for a log, an error or a check."""
        head = f"{self.key}: {self.suite}"
        if self.passed:
            return f"{head}, {len(self.results)} of {len(self.results)} hold over {self.rows} rows"
        failed = "; ".join(r.line() for r in self.failures)
        return f"{head} fails {len(self.failures)} of {len(self.results)} over {self.rows} rows: {failed}"

    def metadata(self) -> dict[str, int | str | bool]:
        """Plain values for a check's metadata."""
        return {
            "suite": self.suite,
            "rows": self.rows,
            "expectations": len(self.results),
            "failed": len(self.failures),
            "failures": "; ".join(r.line() for r in self.failures) or "none",
        }


def judge(key: str, parquet_files: Sequence[str]) -> Verdict:
    """Validate exactly these Parquet files (paths or fsspec URLs, read as one table) by the suite of `key`.

    Returns a Verdict; never raises for what the data are like. Raises SuiteError if the suite's YAML is wrong.
    """
    suite = load_suite(suite_path(key))
    if not parquet_files:
        nothing = Result("there are files to judge", "files", (), False, "no_files")
        return Verdict(key, suite.name, suite.blocking, False, 0, (nothing,))
    with catalog.scratch("gate") as folder:
        database = folder / "gate.duckdb"
        try:
            local = [_local(f, folder) for f in parquet_files]
            rows, columns = _view(database, local)
            _view(folder / SAYING, local)  # Great Expectations keeps its own open
        except (duckdb.Error, OSError) as error:
            unread = Result(
                "the files are readable Parquet", "files", (), False, f"raised {type(error).__name__}"
            )
            return Verdict(key, suite.name, suite.blocking, False, 0, (unread,))
        verdict = _validate(key, suite, database, rows, columns)
        raised = {r.says for r in verdict.results if (r.failure or "").startswith("raised")}
        if len(raised) < 2:
            return verdict
        # a query that fails takes those after it in its transaction along: ask each of them alone
        alone = {}
        for rule in (rule for rule in suite.expectations if rule.says in raised):
            one = suite.model_copy(update={"expectations": [rule]})
            alone[rule.says] = _validate(key, one, database, rows, columns).results[0]
        results = tuple(alone.get(r.says, r) for r in verdict.results)
        return replace(verdict, results=results, passed=all(r.passed for r in results))


def changed_files(accepted: catalog.Catalog, key: str) -> int:
    """How many accepted files of the key are gone or no longer have the sha256 of their acceptance."""
    changed = 0
    for record, url in zip(accepted.entry(key)["files"], accepted.files(key), strict=True):
        try:
            changed += catalog.sha256_of(url) != record["sha256"]
        except FileNotFoundError:
            changed += 1
    return changed


def _in_memory() -> Any:
    """A project that lives in memory only: no temporary folders, no progress bars."""
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )


def _local(file: str, folder: Path) -> str:
    if catalog.is_local(file):
        return file
    target = folder / f"{len(list(folder.iterdir()))}.parquet"
    fs, path = fsspec.core.url_to_fs(file)
    fs.get_file(path, str(target))
    return str(target)


def _view(database: Path, files: list[str]) -> tuple[int, set[str]]:
    listed = ", ".join("'" + f.replace("'", "''") + "'" for f in files)
    with duckdb.connect(str(database)) as connection:
        connection.execute(
            f"create view candidate as from read_parquet([{listed}], hive_partitioning = false, union_by_name = true)"
        )
        columns = {row[0] for row in connection.execute("describe candidate").fetchall()}
        return connection.execute("select count(*) from candidate").fetchall()[0][0], columns


def _validate(key: str, suite: Suite, database: Path, rows: int, columns: set[str]) -> Verdict:
    gx = great_expectations_module()
    from great_expectations.data_context.data_context.context_factory import project_manager

    runnable = [(rule, expectation(rule)) for rule in suite.expectations if columns.issuperset(rule.columns)]
    with _quiet():
        context = gx.get_context(mode="ephemeral", project_config=_in_memory())
        source = context.data_sources.add_sql("published", connection_string=f"duckdb:///{database}")
        batch = source.add_table_asset("candidate", table_name="candidate").add_batch_definition_whole_table(
            "all"
        )
        listed = context.suites.add(gx.ExpectationSuite(suite.name, expectations=[e for _, e in runnable]))
        definition = gx.ValidationDefinition(name=suite.name, data=batch, suite=listed)
        context.validation_definitions.add(definition)
        validated = definition.run(result_format={"result_format": "SUMMARY", "partial_unexpected_count": 0})
        engine = source.get_execution_engine().engine
        engine.dialect._type_memos.clear()
        engine.dispose()
        project_manager.set_project(None)
        for result in validated.results:
            _drop_values(result)
        by_sentence = {r.expectation_config.meta["says"]: r for r in validated.results}
        results = tuple(_result(rule, by_sentence.get(rule.says)) for rule in suite.expectations)
        if key.rsplit("/", 1)[-1] in OF_COUNTS:
            results = tuple(
                replace(result, found=() if result.passed else _said(rule, database.with_name(SAYING)))
                for rule, result in zip(suite.expectations, results, strict=True)
            )
        verdict = Verdict(key, suite.name, suite.blocking, all(r.passed for r in results), rows, results)
        return replace(verdict, page=data_docs.render(verdict, validated))


def _said(rule: Rule, database: Path) -> tuple[str, ...]:
    """What the failing rows of a table of counts say of themselves."""
    query = rule.kwargs.get("unexpected_rows_query")
    if query is None:
        return ()
    with duckdb.connect(str(database)) as connection:
        found = connection.execute(f"select what from ({query.format(batch='candidate')})").fetchall()
    return tuple(row[0] for row in found)


def _drop_values(result: Any) -> None:
    """Leave counts only, in place; the renderer and the verdict see nothing else."""
    kept = {k: v for k, v in result.result.items() if k in COUNTS}
    if result.expectation_config.type in OBSERVED_IS_A_COUNT and "observed_value" in result.result:
        kept["observed_value"] = result.result["observed_value"]
    result.result = kept
    raised = _raised(result.exception_info or {})
    result.exception_info = {
        "raised_exception": raised is not None,
        "exception_message": raised,
        "exception_traceback": raised and "",
    }


def _raised(info: Mapping[str, Any]) -> str | None:
    """The class of the error an expectation raised, without its text; None if it raised none."""
    details = [info] if "raised_exception" in info else [d for d in info.values() if isinstance(d, Mapping)]
    for detail in details:
        if detail.get("raised_exception"):
            lines = str(detail.get("exception_traceback") or "").strip().splitlines()
            classes = [
                m.group(1)
                for line in lines
                if (m := re.match(r"([A-Za-z_][\w.]*(?:Error|Exception))\b", line))
            ]
            return classes[0].rsplit(".", 1)[-1] if classes else "Exception"
    return None


def _result(rule: Rule, result: Any | None) -> Result:
    empty = Result(rule.says, rule.type, tuple(rule.columns), False, "missing_column")
    if result is None:
        return empty
    if raised := result.exception_info["exception_message"]:
        return replace(empty, failure=f"raised {raised}")
    observed = result.result.get("observed_value")
    unexpected = (
        observed if rule.type == "unexpected_rows_expectation" else result.result.get("unexpected_count")
    )
    return replace(
        empty,
        passed=bool(result.success),
        failure=None if result.success else "rows",
        checked=result.result.get("element_count"),
        unexpected=unexpected,
        observed=observed,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Great Expectations logs the text of errors, which quotes rows; keep it quiet while it works."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
