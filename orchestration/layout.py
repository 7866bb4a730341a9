"""The mapping language: how one hospital's raw files become the input layer, as YAML and CSV.

A layout is `orchestration/schemas/<layout>/{tables.yaml,items.csv}`; a hospital's folder may hold the same two files and
may extend a layout. What the hospital says wins: raw tables are merged key by key, an input table's list of sources is
replaced as a whole, `null` removes, an item of `items.csv` replaces the layout's. All is checked before anything runs;
every mistake is one line that names file, key and mend.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zoneinfo import available_timezones

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration import catalog, input_layer
from orchestration.expressions import Expression, ExpressionError, dry_run, parse, quoted
from orchestration.items_csv import Item, check_source_tables, load_items
from orchestration.wording import LayoutError, near, relative

SCHEMAS = catalog.REPOSITORY / "orchestration" / "schemas"
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


def load(folder: Path | None, extends: str | None) -> Layout:
    """Load and check the mapping of a hospital's folder, of the layout that it extends, or of both merged.

    Raises LayoutError: one line naming file, key and mend.
    """
    chain = _chain(folder, extends)
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for file, content in chain["tables.yaml"]:
        merged = _merge(merged, content, origin, relative(file))
    if not merged:
        raise LayoutError(
            f"{relative(folder or SCHEMAS)}: there is no tables.yaml; write one or set extends: {_layouts()}"
        )
    tables = _validated(Tables, merged, origin)
    return _checked(tables, origin, load_items(file for file, _ in chain["items.csv"]))


def person_group(folder: Path | None, extends: str | None) -> str | None:
    """The `person_group` of a mapping, read without checking the rest. Raises LayoutError if its files are not there."""
    said = [content.get("person_group") for _, content in _chain(folder, extends)["tables.yaml"]]
    return next((group for group in reversed(said) if group), None)


def _chain(folder: Path | None, extends: str | None) -> dict[str, list[tuple[Path, Any]]]:
    """The files that count, the farthest ancestor first."""
    own = _read_yaml(folder / "tables.yaml") if folder and (folder / "tables.yaml").is_file() else {}
    parents, seen = [], []
    name, named_in = own.pop("extends", None) or extends, folder
    while name:
        if not (SCHEMAS / name / "tables.yaml").is_file():
            raise LayoutError(
                f"{relative(named_in)}: extends: no layout is called {name}; {near(name, _layout_names())}"
            )
        if name in seen:
            raise LayoutError(
                f"{relative(SCHEMAS / name)}/tables.yaml: extends: {name} extends itself; remove one extends"
            )
        seen.append(name)
        content = _read_yaml(SCHEMAS / name / "tables.yaml")
        parents.insert(0, (SCHEMAS / name, content))
        name, named_in = content.pop("extends", None), SCHEMAS / name
    places = [*parents, *([(folder, own)] if folder else [])]
    return {
        "tables.yaml": [(place / "tables.yaml", content) for place, content in places if content],
        "items.csv": [(place / "items.csv", None) for place, _ in places if (place / "items.csv").is_file()],
    }


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise LayoutError(
            f"{relative(path)}: line {line} is not valid YAML; check its indentation and quotes"
        ) from None
    if not isinstance(content, dict):
        raise LayoutError(
            f"{relative(path)}: must hold keys such as raw and input; {near('', Tables.model_fields)}"
        )
    return content


def _merge(below: dict[str, Any], above: dict[str, Any], origin: dict[str, str], file: str) -> dict[str, Any]:
    merged = {**below, **{k: v for k, v in above.items() if k not in ("raw", "input")}}
    origin.update({k: file for k in above})
    for part in ("raw", "input"):
        entries = above.get(part) or {}
        if not isinstance(entries, dict):
            raise LayoutError(f"{file}: {part}: must map names to their definition")
        target = dict(below.get(part, {}))
        for name, entry in entries.items():
            origin[f"{part}.{name}"] = file
            both = part == "raw" and isinstance(entry, dict) and isinstance(target.get(name), dict)
            target[name] = {**target[name], **entry} if both else entry
        merged[part] = {name: entry for name, entry in target.items() if entry is not None}
    return merged


def _validated(model: type[Tables], content: dict[str, Any], origin: dict[str, str]) -> Tables:
    for name in content.get("input", {}):
        if name not in input_layer.tables():
            file = _origin(origin, f"input.{name}")
            raise LayoutError(f"{file}: input.{name} is no input table; {near(name, input_layer.tables())}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        loc = [p for p in first["loc"] if p != "str" and not str(p).startswith("list[")]
        where = _dotted(loc)
        file = _origin(origin, where)
        if first["type"] == "extra_forbidden":
            known = (
                {"raw": RawTable, "input": Source, "opt_out": OptOut}.get(str(loc[0]), Tables)
                if len(loc) > 1
                else Tables
            )
            names = [f.alias or n for n, f in known.model_fields.items()]
            raise LayoutError(f"{file}: {where} is an unknown key; {near(str(loc[-1]), names)}") from None
        raise LayoutError(f"{file}: {where}: {first['msg'][:1].lower() + first['msg'][1:]}") from None


def _checked(tables: Tables, origin: dict[str, str], items: list[Item]) -> Layout:
    if tables.timezone != "as_written" and tables.timezone not in available_timezones():
        hint = near(tables.timezone, ["as_written", *available_timezones()])
        raise LayoutError(
            f"{_origin(origin, 'timezone')}: timezone: {tables.timezone} is no IANA timezone; {hint}"
        )
    for needed in ("patients", "visits"):
        if not tables.input.get(needed):
            raise LayoutError(
                f"{_origin(origin, 'input')}: input.{needed} is missing; every other row hangs on it"
            )
    deleted, zone = {}, tables.timezone
    for name, raw in tables.raw.items():
        where, file = f"raw.{name}", _origin(origin, f"raw.{name}")
        if not NAME.match(name):
            raise LayoutError(f"{file}: {where}: name it in lower case letters, digits and underscores")
        if raw.delivery == "upsert" and not raw.key:
            raise LayoutError(
                f"{file}: {where}: delivery upsert needs key: [the columns that identify a row]"
            )
        if raw.repeats == "expected" and (not raw.key or raw.delivery == "upsert"):
            raise LayoutError(
                f"{file}: {where}.repeats: needs key: [the columns that repeat] and another delivery than upsert"
            )
        if raw.deleted and raw.delivery != "upsert":
            raise LayoutError(
                f"{file}: {where}.deleted: only delivery upsert knows deletions; set it or remove deleted"
            )
        for path in raw.paths:
            if path.startswith("/") or ".." in Path(path).parts or "://" in path:
                raise LayoutError(f"{file}: {where}.path: write {path!r} relative to the hospital's location")
            if not re.search(rf"\.({SUFFIXES})$", path):
                raise LayoutError(
                    f"{file}: {where}.path: {path!r} is none of csv, txt, tsv (each also as .gz), parquet"
                )
        if raw.deleted:
            deleted[name] = _expression(raw.deleted, name, (), zone, f"{file}: {where}.deleted")
    sources = tuple(
        _checked_source(tables, origin, table, position, key, source)
        for table, listed in tables.input.items()
        for position, (key, source) in enumerate(_one_by_one(table, listed))
    )
    opt_out = None
    if tables.opt_out:
        where = f"{_origin(origin, 'opt_out')}: opt_out"
        _known_raw(tables, tables.opt_out.from_, f"{where}.from")
        opt_out = _expression(
            tables.opt_out.patient_id, tables.opt_out.from_, (), zone, f"{where}.patient_id"
        )
    check_source_tables(
        {s.columns["source_table"].sql for s in sources if s.table in ("measurements", "items")}, items
    )
    return Layout(tuple(sorted(set(origin.values()))), tables, sources, tuple(items), deleted, opt_out)


def _one_by_one(table: str, listed: list[Source]) -> Iterable[tuple[str, Source]]:
    """Every source with its place in the YAML; one with `each` as many times as it lists columns."""
    for number, source in enumerate(listed):
        key = f"input.{table}[{number}]"
        if not source.each:
            yield key, source
        for name in source.each:
            filled = {
                part: {k: v.replace("{each}", name) for k, v in getattr(source, part).items()}
                for part in ("columns", "ignore")
            }
            yield f"{key}.{name}", source.model_copy(update=filled)


def _checked_source(
    tables: Tables, origin: dict, table: str, position: int, key: str, source: Source
) -> CheckedSource:
    where = f"{_origin(origin, f'input.{table}')}: {key}"
    _known_raw(tables, source.from_, f"{where}.from")
    for name in source.join:
        _known_raw(tables, name, f"{where}.join")
    mappable = input_layer.mappable(table)
    for name in source.columns:
        if name not in mappable:
            raise LayoutError(
                f"{where}.columns.{name}: {table} has no such column to map; {near(name, mappable)}"
            )
    for name in input_layer.required(table):
        if name not in source.columns:
            raise LayoutError(
                f"{where}.columns.{name} is missing; {table} needs {', '.join(input_layer.required(table))}"
            )
    for reason in source.ignore:
        if not NAME.match(reason):
            raise LayoutError(
                f"{where}.ignore.{reason}: name the reason in lower case letters, digits and underscores"
            )
    lookups = tuple(source.join)
    part = {
        name: {
            k: _expression(v, source.from_, lookups, tables.timezone, f"{where}.{name}.{k}")
            for k, v in getattr(source, name).items()
        }
        for name in ("columns", "join", "ignore")
    }
    checked = CheckedSource(table, position, key, source.from_, part["columns"], part["join"], part["ignore"])
    _binds(checked, where)
    return checked


def _expression(text: str, raw_table: str, lookups: tuple[str, ...], timezone: str, where: str) -> Expression:
    try:
        return parse(str(text), raw_table, lookups, timezone)
    except ExpressionError as error:
        raise LayoutError(f"{where}: {text!r} {error}") from None


def _binds(source: CheckedSource, where: str) -> None:
    """Let DuckDB bind each expression over empty tables: unknown functions and mixed types are found here."""
    columns: dict[str, set[str]] = {source.raw_table: set(), **{name: set() for name in source.join}}
    for expression in source.expressions():
        for table, column in expression.reads:
            columns[table].add(column)
    whole = ", ".join(f"({e.sql})" for e in [*source.columns.values(), *source.ignore.values()])
    if dry_run(f"select {whole} from {from_clause(source)}", columns) is None:
        return
    for part in ("join", "columns", "ignore"):
        for name, expression in getattr(source, part).items():
            if complaint := dry_run(
                f"select ({expression.sql}) from {from_clause(source, on='true')}", columns
            ):
                raise LayoutError(
                    f"{where}.{part}.{name}: DuckDB says: {complaint}; every raw column is text, cast it first"
                )


def from_clause(source: CheckedSource, on: str | None = None) -> str:
    """The raw table (schema `raw`) and its look-ups (schema `once`: without rows of a repeated key) as DuckDB SQL."""
    joins = [
        f"left join once.{quoted(name)} as {quoted(name)} on ({on or condition.sql})"
        for name, condition in source.join.items()
    ]
    return " ".join([f"raw.{quoted(source.raw_table)} as {quoted(source.raw_table)}", *joins])


def _known_raw(tables: Tables, name: str, where: str) -> None:
    if name not in tables.raw:
        raise LayoutError(f"{where}: raw has no table {name}; {near(name, tables.raw)}")


def _origin(origin: dict[str, str], where: str) -> str:
    parts = re.split(r"[.\[]", where)
    return origin.get(".".join(parts[:2])) or origin.get(parts[0]) or "tables.yaml"


def _dotted(loc: Iterable[str | int]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")


def _layout_names() -> list[str]:
    return sorted(p.parent.name for p in SCHEMAS.glob("*/tables.yaml"))


def _layouts() -> str:
    return ", ".join(_layout_names()) or "(there is none yet)"
