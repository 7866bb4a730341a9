"""From raw tables to input tables, as SQL: one raw row becomes one row of `mapped.<table>`, kept or rejected for a reason.

The order of reasons: a repeated key (a fault, or expected), what the mapping ignores, a required value that is missing or unreadable, an end
before the start (of visits and stays), a patient who opted out or is unknown, a second row with the key of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import duckdb

from orchestration import input_layer
from orchestration.expressions import literal, quoted
from orchestration.layout_words import CheckedSource, Layout, from_clause
from orchestration.raw_text import IngestError

AMBIGUOUS, END_CLEARED, AVAILABLE_FILLED = 1, 2, 4
REMARKS = {
    "ambiguous_local_hour": AMBIGUOUS,
    "end_before_start_cleared": END_CLEARED,
    "available_at_taken_from_event_at": AVAILABLE_FILLED,
}
SPINE = ("visits", "stays")
_EXPLICIT_OFFSET = r":[0-9]{2}([.][0-9]+)?\s*[a-zA-Z+-].*$"  # Z, +01:00, UTC, Europe/Berlin


@dataclass(frozen=True)
class Place:
    """What the SQL must know about the hospital: its name, buckets, and the row_id prefix of each file of a raw table."""

    hospital: str
    buckets: int
    person_group: str
    timezone: str
    prefixes: dict[str, list[str]]


def create_mapped(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    columns = ", ".join(f"{quoted(c)} {t}" for c, t in input_layer.tables()[table].items())
    connection.execute(
        f"create table mapped.{quoted(table)} ({columns}, __bucket integer, __source integer, __file integer, "
        "__row bigint, __reason varchar, __columns varchar, __unreadable uinteger, __remarks utinyint)"
    )


def run_source(
    connection: duckdb.DuckDBPyConnection, layout: Layout, source: CheckedSource, place: Place
) -> None:
    """Map one source. Raises IngestError if a look-up multiplies rows or an expression fails."""
    before = _rows(connection, f"mapped.{quoted(source.table)}")
    try:
        connection.execute(f"insert into mapped.{quoted(source.table)} {_select(layout, source, place)}")
    except duckdb.Error as error:
        raise IngestError(
            f"{source.key} from {source.raw_table} fails in DuckDB ({type(error).__name__}); "
            "check its expressions against the values of the export"
        ) from None
    added = _rows(connection, f"mapped.{quoted(source.table)}") - before
    raw_rows = _rows(connection, f"raw.{quoted(source.raw_table)}")
    if added != raw_rows:
        raise IngestError(
            f"{source.key}.join ({', '.join(source.join)}) makes {added} rows of {raw_rows}; "
            "a look-up must find one row at most: complete its condition, or declare key: for the looked-up table"
        )


def reject_repeated_keys(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Of rows with the same key of the input table, keep the first and reject the others."""
    if table not in input_layer.KEYS:
        return
    keys = ", ".join(quoted(k) for k in input_layer.KEYS[table])
    mapped = f"mapped.{quoted(table)}"
    connection.execute(
        f"update {mapped} set __reason = 'duplicate_key', __columns = {literal(keys.replace(chr(34), ''))} "
        f"where __reason is null and rowid not in "
        f"(select min(rowid) from {mapped} where __reason is null group by {keys})"
    )


def create_persons(connection: duckdb.DuckDBPyConnection, buckets: int) -> None:
    """The accepted patients with the bucket of their person: what every other row is checked and placed by."""
    connection.execute(
        f"create table persons as select patient_id, {_draw('person_group', 'person_id')} % {buckets} as bucket "
        "from mapped.patients where __reason is null"
    )


def remarks(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, int]:
    """Counts of what was mended or left empty in rows that are kept, by kind and column; zeros are left out."""
    counts = {name: f"count(*) filter (__remarks & {bit} > 0)" for name, bit in REMARKS.items()}
    for position, column in enumerate(input_layer.tables()[table]):
        counts[f"unreadable_{column}"] = f"count(*) filter (__unreadable & {1 << position} > 0)"
    row = connection.execute(
        f"select {', '.join(counts.values())} from mapped.{quoted(table)} where __reason is null"
    ).fetchall()[0]
    return {name: count for name, count in zip(counts, row, strict=True) if count}


def _select(layout: Layout, source: CheckedSource, place: Place) -> str:
    table, types = source.table, input_layer.tables()[source.table]
    given = {name: expression.sql for name, expression in source.columns.items()}
    if table == "measurements":
        given.setdefault("value_number", given.get("value_text", "null"))
    raw = quoted(source.raw_table)
    looked_up = ", ".join(
        [f"{raw}.__file as __file", f"{raw}.__row as __row", f"{raw}.__repeated as __repeated"]
        + [f"({sql}) as {quoted('r_' + name)}" for name, sql in given.items()]
        + [f"coalesce({_fails(source, name)}, false) as {quoted('f_' + name)}" for name in given]
        + [f"coalesce(({e.sql}), false) as {quoted(f'i_{n}')}" for n, e in enumerate(source.ignore.values())]
    )
    typed = [f"{_typed(types[c], c, place.timezone)} as {quoted('t_' + c)}" for c in given]
    final = {c: quoted("t_" + c) if c in given else f"null::{types[c]}" for c in types}
    final |= {"hospital": literal(place.hospital), "row_id": _row_id(layout, source, place)}
    flags = []
    if table == "patients":
        final["person_group"] = f"coalesce({final['person_group']}, {literal(place.person_group)})"
        final["person_id"] = f"coalesce({final['person_id']}, t_patient_id)"
        final["split"] = _split(_draw(final["person_group"], final["person_id"]))
    if "end_at" in given and table not in SPINE:
        final["end_at"] = "case when t_end_at >= t_event_at then t_end_at end"
        flags.append(f"case when t_end_at < t_event_at then {END_CLEARED} else 0 end")
    if "available_at" in types:
        final["available_at"] = f"coalesce({final['available_at']}, t_event_at)"
        if "available_at" in given:
            flags.append(f"case when t_available_at is null then {AVAILABLE_FILLED} else 0 end")
    if place.timezone != "as_written" and "event_at" in given:
        flags.append(f"case when {_ambiguous('r_event_at', place.timezone)} then {AMBIGUOUS} else 0 end")
    unreadable = [
        f"case when {_unreadable(c)} then {1 << position} else 0 end"
        for position, c in enumerate(types)
        if c in source.columns and (types[c] != "VARCHAR" or _fails(source, c) != "false")
    ]
    reason, columns = _reasons(layout, source)
    on_patient = "patient_id" in types and table != "patients"
    bucket = "persons.bucket" if on_patient else "0"
    if table == "patients":
        bucket = f"{_draw(final['person_group'], final['person_id'])} % {place.buckets}"
    return f"""
        with looked_up as (select {looked_up} from {from_clause(source)}),
        typed as (select *, {", ".join(typed)} from looked_up)
        select {", ".join(final[c] for c in types)}, {bucket}, {source.position}, __file, __row,
          {reason}, {columns}, {" + ".join(unreadable) or "0"}, {" + ".join(flags) or "0"}
        from typed {"left join persons on persons.patient_id = t_patient_id" if on_patient else ""}
        {"left join opted_out on opted_out.patient_id = t_patient_id" if "patient_id" in types else ""}"""


def _reasons(layout: Layout, source: CheckedSource) -> tuple[str, str]:
    """Two SQL expressions: the first reason to reject the row, and the columns at fault."""
    types = input_layer.tables()[source.table]
    raw = layout.tables.raw[source.raw_table]
    repeated = "repeats_another_row" if raw.repeats == "expected" else "duplicate_key"
    cases = [("__repeated", repeated, ", ".join(raw.key))]
    cases += [(quoted(f"i_{n}"), name, "") for n, name in enumerate(source.ignore)]
    for column in input_layer.required(source.table):
        cases.append((_unreadable(column), "unreadable", column))
        cases.append((f"{quoted('t_' + column)} is null", "missing", column))
    if source.table in SPINE and "end_at" in source.columns:
        cases.append(("t_end_at < t_event_at", "ends_before_it_starts", "event_at, end_at"))
    if "patient_id" in types:
        cases.append(("opted_out.patient_id is not null", "opted_out", ""))
        if source.table != "patients":
            cases.append(("persons.patient_id is null", "unknown_patient", "patient_id"))
    return tuple(
        f"case {' '.join(f'when {case[0]} then {literal(case[position])}' for case in cases)} end"
        for position in (1, 2)
    )


def _typed(type_: str, column: str, timezone: str) -> str:
    value = quoted("r_" + column)
    if type_ == "VARCHAR":
        text = f"cast({value} as varchar)"
        return f"nullif(trim({text}), '')" if column.endswith("_id") else f"nullif({text}, '')"
    cast = f"try_cast({value} as {type_})"
    if type_ == "DOUBLE":
        return f"case when isfinite({cast}) then {cast} end"
    if type_ == "TIMESTAMP" and timezone != "as_written":
        text, local = f"cast({value} as varchar)", f"timezone('UTC', timezone({literal(timezone)}, {cast}))"
        iso = f"regexp_replace(regexp_replace({text}, '\\s+([+-])', '\\1'), 'z$', 'Z')"
        explicit = f"timezone('UTC', try_cast({iso} as timestamptz))"
        return f"case when {_has_offset(value)} then {explicit} else {local} end"
    return cast


def _has_offset(value: str) -> str:
    """True where a time names its own offset or zone. `2020-03-01 10:00:00`, as most are, is told by its shape alone."""
    text = f"cast({value} as varchar)"
    plain = f"length({text}) = 19 and substr({text}, 17, 1) = ':'"
    return f"case when {plain} then false else coalesce(regexp_matches({text}, {literal(_EXPLICIT_OFFSET)}), false) end"


def _unreadable(column: str) -> str:
    """Null although the raw row holds a text for it; `case` keeps DuckDB from looking at the rows that are not null."""
    value = quoted("r_" + column)
    text = f"coalesce(trim(cast({value} as varchar)), '') <> ''"
    return f"case when {quoted('t_' + column)} is null then {quoted('f_' + column)} or {text} else false end"


def _fails(source: CheckedSource, column: str) -> str:
    expression = source.columns.get(column)
    if not expression or not expression.fails:
        return "false"
    return f"case when ({expression.sql}) is null then {expression.fails} else false end"


def _row_id(layout: Layout, source: CheckedSource, place: Place) -> str:
    """`<raw_table>:<row>`; a second source of one raw table in the same input table adds `#2`, and so on."""
    earlier = sum(
        s.raw_table == source.raw_table and s.table == source.table and s.position < source.position
        for s in layout.sources
    )
    prefixes = ", ".join(literal(p) for p in place.prefixes[source.raw_table]) or "''"
    return f"([{prefixes}])[__file + 1] || __row" + (f" || '#{earlier + 1}'" if earlier else "")


def _draw(person_group: str, person_id: str) -> str:
    """The first 8 hex digits of the person's md5 as an unsigned number: decides split and bucket."""
    return f"('0x' || substr(md5({person_group} || chr(31) || {person_id}), 1, 8))::bigint"


def _split(draw: str) -> str:
    share = f"{draw} / 4294967296.0"
    return f"case when {share} < 0.8 then 'train' when {share} < 0.9 then 'tuning' else 'held_out' end"


def _ambiguous(column: str, timezone: str) -> str:
    halves = ", ".join(map(str, ambiguous_half_hours(timezone)))
    if not halves:
        return "false"
    inside = f"coalesce(epoch(try_cast({column} as timestamp))::bigint // 1800 in ({halves}), false)"
    return f"case when {inside} then not {_has_offset(column)} else false end"


@cache
def ambiguous_half_hours(timezone: str, first: int = 1970, last: int = 2100) -> Sequence[int]:
    """Half hours of local time that exist twice, as seconds since 1970 of the naive local time, divided by 1800."""
    zone, found = ZoneInfo(timezone), []
    day = datetime(first, 1, 1, tzinfo=UTC)
    while day.year < last:
        start, end = day.astimezone(zone).utcoffset(), (day + timedelta(days=1)).astimezone(zone).utcoffset()
        if end < start:
            moment = next(
                day + timedelta(minutes=15 * q)
                for q in range(97)
                if (day + timedelta(minutes=15 * q)).astimezone(zone).utcoffset() != start
            )
            again = moment + end
            repeats = range(int((start - end).total_seconds()) // 1800)
            found += [int(again.timestamp()) // 1800 + n for n in repeats]
        day += timedelta(days=1)
    return tuple(found)


def _rows(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return connection.execute(f"select count(*) from {table}").fetchall()[0][0]
