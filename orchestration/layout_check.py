"""A merged mapping is checked as a whole before anything runs: each mistake is one line that names file, key and mend."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from zoneinfo import available_timezones

from orchestration import input_layer
from orchestration.expressions import Expression, ExpressionError, dry_run, parse
from orchestration.items_csv import Item, check_source_tables
from orchestration.layout_words import NAME, SUFFIXES, CheckedSource, Layout, Source, Tables, from_clause
from orchestration.wording import LayoutError, near


def checked(tables: Tables, origin: dict[str, str], items: list[Item]) -> Layout:
    """The mapping with every expression parsed and bound. `origin`: key to the file that says it. Raises LayoutError."""
    if tables.timezone != "as_written" and tables.timezone not in available_timezones():
        hint = near(tables.timezone, ["as_written", *available_timezones()])
        raise LayoutError(
            f"{origin_of(origin, 'timezone')}: timezone: {tables.timezone} is no IANA timezone; {hint}"
        )
    for needed in ("patients", "visits"):
        if not tables.input.get(needed):
            raise LayoutError(
                f"{origin_of(origin, 'input')}: input.{needed} is missing; every other row hangs on it"
            )
    deleted, zone = {}, tables.timezone
    for name, raw in tables.raw.items():
        where, file = f"raw.{name}", origin_of(origin, f"raw.{name}")
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
        where = f"{origin_of(origin, 'opt_out')}: opt_out"
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
    where = f"{origin_of(origin, f'input.{table}')}: {key}"
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


def _known_raw(tables: Tables, name: str, where: str) -> None:
    if name not in tables.raw:
        raise LayoutError(f"{where}: raw has no table {name}; {near(name, tables.raw)}")


def origin_of(origin: dict[str, str], where: str) -> str:
    """The file that says the key `where`."""
    parts = re.split(r"[.\[]", where)
    return origin.get(".".join(parts[:2])) or origin.get(parts[0]) or "tables.yaml"
