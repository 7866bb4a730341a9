"""The words of tables.yaml as types: as they are written, and after they have been checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestration.expressions import Expression, quoted
from orchestration.items_csv import Item

NAME = re.compile(r"^[a-z][a-z0-9_]*$")
SUFFIXES = r"(?:csv|txt|tsv)(?:\.gz)?|parquet"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RawTable(_Strict):
    """Files of the export that make one raw table. Paths are relative to the hospital's location; `*` is allowed.

    `delivery`: `full` (tonight's files are the whole table), `append` (new files add rows) or `upsert` (new files add
    rows, a later row replaces an earlier one with the same `key`, one for which `deleted` holds removes it). Files
    count as delivered in the order of their names, so a name carries its extract date.

    `repeats: expected` says that many rows share a key and the first one stands for all: a patient told by each stay.
    """

    path: str | list[str]
    delivery: Literal["full", "append", "upsert"] = "full"
    key: list[str] = []
    repeats: Literal["fault", "expected"] = "fault"
    deleted: str | None = None
    optional: bool = False
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    encoding: str = "utf-8"

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def is_one_file(self) -> bool:
        return self.delivery == "full" and len(self.paths) == 1 and "*" not in self.paths[0]


class Source(_Strict):
    """One raw table that feeds an input table: one raw row becomes at most one input row.

    `each` lists columns of a wide table: there is one such source a column, in which `{each}` stands for its name.
    """

    from_: str = Field(alias="from")
    each: list[str] = []
    columns: dict[str, str]
    join: dict[str, str] = {}
    ignore: dict[str, str] = {}


class OptOut(_Strict):
    """A raw table that lists patients whose rows are removed everywhere."""

    from_: str = Field(alias="from")
    patient_id: str


class Tables(_Strict):
    """The content of a `tables.yaml`, after merging."""

    timezone: str = "as_written"
    person_group: str | None = None
    raw: dict[str, RawTable]
    input: dict[str, list[Source]]
    opt_out: OptOut | None = None


@dataclass(frozen=True)
class CheckedSource:
    """A source with its expressions checked; `key` says where it stands in the YAML, for messages."""

    table: str
    position: int
    key: str
    raw_table: str
    columns: dict[str, Expression]
    join: dict[str, Expression]
    ignore: dict[str, Expression]

    def expressions(self) -> Iterable[Expression]:
        return [*self.columns.values(), *self.join.values(), *self.ignore.values()]


@dataclass(frozen=True)
class Layout:
    """A merged and checked mapping, ready to run."""

    files: tuple[str, ...]
    tables: Tables
    sources: tuple[CheckedSource, ...]
    items: tuple[Item, ...]
    deleted: dict[str, Expression] = field(default_factory=dict)
    opt_out: Expression | None = None

    @cached_property
    def reads(self) -> dict[str, set[str]]:
        """The columns that each raw table must have, keys included; raw tables that nothing reads are absent."""
        needed: dict[str, set[str]] = {s.raw_table: set() for s in self.sources}
        needed |= {name: set() for s in self.sources for name in s.join}
        every = [e for s in self.sources for e in s.expressions()] + list(self.deleted.values())
        for expression in every + ([self.opt_out] if self.opt_out else []):
            for table, column in expression.reads:
                needed.setdefault(table, set()).add(column)
        for table in needed:
            needed[table].update(column.lower() for column in self.tables.raw[table].key)
        return needed

    @property
    def hash(self) -> str:
        content = [self.tables.model_dump(by_alias=True), [(i.values, i.row_id) for i in self.items]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def from_clause(source: CheckedSource, on: str | None = None) -> str:
    """The raw table (schema `raw`) and its look-ups (schema `once`: without rows of a repeated key) as DuckDB SQL."""
    joins = [
        f"left join once.{quoted(name)} as {quoted(name)} on ({on or condition.sql})"
        for name, condition in source.join.items()
    ]
    return " ".join([f"raw.{quoted(source.raw_table)} as {quoted(source.raw_table)}", *joins])
