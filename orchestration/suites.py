"""The suites of `expectations/`: named lists of sentences, each one Great Expectations expectation, checked when read."""

from __future__ import annotations

import atexit
import difflib
import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration import catalog
from orchestration.wording import relative

EXPECTATIONS = catalog.REPOSITORY / "expectations"


class SuiteError(RuntimeError):
    """A suite's YAML is wrong; the message names file, key and mend."""


class Rule(BaseModel):
    """One expectation: its Great Expectations type, the sentence it stands for, and its arguments beside them."""

    model_config = ConfigDict(extra="allow")
    type: str
    says: str

    @property
    def kwargs(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def columns(self) -> list[str]:
        named = [self.kwargs[k] for k in ("column", "column_A", "column_B") if k in self.kwargs]
        return named + list(self.kwargs.get("column_list", []))


class Suite(BaseModel):
    """A file of `expectations/`. `blocking` says whether a failing check stops what is downstream in the same run."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    description: str = ""
    blocking: bool = False
    expectations: list[Rule] = Field(min_length=1)


def suite_path(key: str) -> Path:
    """`features/icu_hourly` has `expectations/features/icu_hourly.yaml`; all hospitals share `expectations/input/`."""
    parts = key.split("/")
    name = f"input/{parts[2]}" if parts[0] == "input" and len(parts) == 3 else key
    return EXPECTATIONS / f"{name}.yaml"


def has_suite(key: str) -> bool:
    return suite_path(key).is_file()


def read_suite(path: Path) -> Suite:
    """Read one suite and check its form, without importing Great Expectations. Raises SuiteError with file and mend."""
    name = relative(path)
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise SuiteError(f"{name}: line {line} is not valid YAML; check its indentation and quotes") from None
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise SuiteError(
            f"{name}: {where}: {first['msg']}; a suite has {', '.join(Suite.model_fields)}"
        ) from None
    said = [rule.says for rule in suite.expectations]
    for position, sentence in enumerate(said):
        if sentence in said[:position]:
            raise SuiteError(
                f"{name}: expectations[{position}]: says {sentence!r} again; give each expectation its own sentence"
            )
    return suite


def load_suite(path: Path) -> Suite:
    """Read one suite and check every expectation's type and arguments. Raises SuiteError with file, key and mend."""
    suite = read_suite(path)
    for position, rule in enumerate(suite.expectations):
        try:
            expectation(rule)
        except SuiteError as error:
            raise SuiteError(f"{relative(path)}: expectations[{position}]: {error}") from None
    return suite


def expectation(rule: Rule) -> Any:
    great_expectations_module()
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    known = list_registered_expectation_implementations()
    if rule.type not in known:
        near = difflib.get_close_matches(rule.type, known, n=1)
        raise SuiteError(
            f"no expectation is called {rule.type}; " + (f"did you mean {near[0]}?" if near else "check it")
        )
    implementation = get_expectation_impl(rule.type)
    unknown = sorted(set(rule.kwargs) - set(implementation.__fields__))
    if unknown:
        near = difflib.get_close_matches(unknown[0], list(implementation.__fields__), n=1)
        hint = f"did you mean {near[0]}?" if near else "remove it"
        raise SuiteError(f"{rule.type} has no argument {unknown[0]}; {hint}")
    try:
        return implementation(**rule.kwargs, meta={"says": rule.says})
    except ValueError as error:  # pydantic v1's ValidationError is one
        first = error.errors()[0] if hasattr(error, "errors") else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, first["loc"])) or "arguments"
        raise SuiteError(f"{rule.type}: {where}: {first['msg']}") from None


@cache
def great_expectations_module():
    """Great Expectations with analytics off, mended so that a DuckDB connection stays open until results are fetched.

    The mend is on a private name of 1.24 (dialects whose connection is kept); tests/test_gate.py holds it in place.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import duckdb_engine
    import great_expectations
    from great_expectations.execution_engine import sqlalchemy_execution_engine as engine

    dialect = type("Dialect", (str,), {"value": "duckdb"})("duckdb")
    engine._PERSISTED_CONNECTION_DIALECTS += (dialect,)
    # Both caches keep DuckDB's types alive past the interpreter's end, which then prints 60 lines of warnings: this one,
    # and SQLAlchemy's memo of types (see _validate).
    atexit.register(vars(duckdb_engine).clear)
    return great_expectations
