"""The expressions of a mapping: one SQL scalar expression a column, checked before anything runs.

An expression reads columns of its own raw row (and of looked-up rows) and nothing else: no subselect, no aggregate, no
function that reads files or settings or gives another answer tomorrow. A plain cast becomes a try_cast, so that a text
that does not fit is counted as unreadable instead of stopping the night.

Names of columns may be written in any case. `after(start, offset)` is the time that lies an offset after a start, where an
export has no clock time: `after(start, '26:07')` in hours and minutes, `after(start, 1567, 'minute')` in any of second,
minute, hour, day. The offset is time that passed: it counts through a change to or from summer time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import duckdb
import sqlglot
from sqlglot import exp

_FORBIDDEN_NODES = {
    exp.Query: "a subselect",
    exp.Subquery: "a subselect",
    exp.Exists: "a subselect",
    exp.Table: "a table",
    exp.Window: "a window function",
    exp.AggFunc: "an aggregate",
    exp.Star: "a star",
    exp.Placeholder: "a parameter",
    exp.Parameter: "a parameter",
    exp.Command: "a command",
    exp.DDL: "a statement",
    exp.Rand: "a random number",
    exp.CurrentTimestamp: "the present time",
    exp.CurrentDate: "the present time",
    exp.CurrentTime: "the present time",
}
_FORBIDDEN_FUNCTIONS = re.compile(
    r"^(read_\w+|parquet_\w+|sniff_csv|glob|query\w*|getenv|current_\w+|getvariable|pragma_\w+|duckdb_\w+|load_\w+|"
    r"now|today|random|setseed|\w*uuid\w*|get_current_\w+|transaction_timestamp|txid_current|nextval|currval|unnest|"
    r"in_search_path|version|write_log|sleep\w*)$"
)


OFFSET_UNITS = ("second", "minute", "hour", "day")


class ExpressionError(ValueError):
    """An expression is not SQL, or does what a mapping may not do; the message is one clause with its mend."""


@dataclass(frozen=True)
class Expression:
    """A checked expression as DuckDB SQL with every column qualified, and the (raw table, column) pairs it reads.

    `fails` is a condition: some text inside was there but could not be cast or parsed. None if nothing is cast.
    """

    sql: str
    reads: frozenset[tuple[str, str]]
    fails: str | None = None


def parse(
    text: str, raw_table: str, lookups: tuple[str, ...] = (), timezone: str = "as_written"
) -> Expression:
    """Check one expression. A bare column belongs to `raw_table`; a look-up's column is written `lookup.column`.

    `timezone` is that of the hospital's clocks, for `after`. Raises ExpressionError.
    """
    try:
        parsed = sqlglot.parse(text, dialect="duckdb")
    except sqlglot.errors.SqlglotError as error:
        column = error.errors[0].get("col") if getattr(error, "errors", None) else None
        at = f" near its character {column}" if column else ""
        raise ExpressionError(f"is no SQL expression{at}; check brackets, quotes and commas") from None
    if len(parsed) != 1 or parsed[0] is None:
        raise ExpressionError("is not one SQL expression; write exactly one")
    tree = exp.select(parsed[0].copy()).expressions[0]
    for node in tree.walk():
        _refuse(node)
    known = {name.lower(): name for name in (raw_table, *lookups)}
    reads = set()
    for column in tree.find_all(exp.Column):
        owner = known.get((column.table or raw_table).lower())
        if owner is None:
            raise ExpressionError(
                f"reads {column.table}.{column.name}, but {column.table} is not joined; known: {', '.join(known)}"
            )
        column.set("table", exp.to_identifier(owner, quoted=True))
        reads.add((owner, column.name.lower()))
    tree = tree.transform(_mild).transform(_relative, timezone)
    return Expression(tree.sql(dialect="duckdb"), frozenset(reads), _fails(tree))


def dry_run(select: str, tables: dict[str, set[str]]) -> str | None:
    """Bind a select over empty all-text tables with these columns; returns DuckDB's complaint, or None.

    No data is there, so the complaint quotes the mapping's own words only.
    """
    with duckdb.connect() as connection:
        connection.execute("set enable_external_access = false")
        connection.execute("create schema raw; create schema once")
        for name, columns in tables.items():
            listed = ", ".join(f"{quoted(c)} VARCHAR" for c in sorted(columns)) or '"__none" VARCHAR'
            connection.execute(f"create table raw.{quoted(name)} ({listed})")
            connection.execute(f"create view once.{quoted(name)} as from raw.{quoted(name)}")
        try:
            connection.execute(f"explain {select}")
        except duckdb.Error as error:
            complaint = str(error).split("\n\nLINE")[0].split("\nLINE")[0]
            return re.sub(r"\s+", " ", complaint).strip()[:300]
    return None


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _refuse(node: exp.Expression) -> None:
    for kind, what in _FORBIDDEN_NODES.items():
        if isinstance(node, kind):
            raise ExpressionError(f"holds {what}; an expression may only read the columns of its own row")
    if isinstance(node, exp.Func):
        name = node.name if isinstance(node, exp.Anonymous) else node.sql_name()
        if _FORBIDDEN_FUNCTIONS.match(name.lower()):
            raise ExpressionError(
                f"calls {name.lower()}; functions that read files, settings or the clock are refused"
            )


def _fails(tree: exp.Expression) -> str | None:
    """A cast fails where its argument is a text and its result is null."""
    conditions = []
    for node in tree.walk():
        parses = isinstance(node, exp.Anonymous) and node.name.lower() == "try_strptime"
        if isinstance(node, exp.TryCast) or parses:
            argument = (node.expressions[0] if parses else node.this).sql(dialect="duckdb")
            text = f"nullif(trim(cast(({argument}) as varchar)), '')"
            conditions.append(f"({text} is not null and {node.sql(dialect='duckdb')} is null)")
    return " or ".join(conditions) or None


def _relative(node: exp.Expression, timezone: str) -> exp.Expression:
    """`after(start, offset[, unit])` as DuckDB SQL, in the hospital's local time as all times of a mapping are."""
    if not (isinstance(node, exp.Anonymous) and node.name.lower() == "after"):
        return node
    if len(node.expressions) not in (2, 3):
        raise ExpressionError("calls after; write after(start, offset) or after(start, offset, 'minute')")
    start, offset, *unit = (argument.sql(dialect="duckdb") for argument in node.expressions)
    if unit and unit[0].strip("'").lower() not in OFFSET_UNITS:
        raise ExpressionError(f"calls after with unit {unit[0]}; known: {', '.join(OFFSET_UNITS)}")
    text = f"trim(cast({offset} as varchar))"
    if unit:
        text = f"{text} || ' ' || {unit[0]}"
    else:  # a bare number is no clock time: DuckDB would take it for seconds
        text = f"regexp_replace({text}, '^-?[0-9.]+$', 'no clock time')"
    start = f"try_cast({start} as timestamp)"
    moment = f"{start} + try_cast({text} as interval)"
    if timezone != "as_written":
        zone = literal(timezone)
        moment = f"timezone({zone}, timezone({zone}, {start}) + try_cast({text} as interval))"
    return sqlglot.parse_one(f"({moment})", dialect="duckdb")


def _mild(node: exp.Expression) -> exp.Expression:
    if type(node) is exp.Cast:
        return exp.TryCast(**node.args)
    if isinstance(node, exp.StrToTime):
        return exp.Anonymous(this="try_strptime", expressions=[node.this, node.args["format"]])
    return node
