"""What a hospital's extract looks like, in counts: rows a day, units, fates, and where the values of each concept lie.

Fates and converted values are those of `harmonised/measurements`: its own SQL, as dbt compiled it, reads the extract.
A profile has one row a count:

| column | what it holds |
|---|---|
| scope | whole (all days) or recent (the RECENT_DAYS full days before the last one) |
| measure | day, concept, unit, fate or values |
| subject | what is counted: an input table, a concept, a concept with its item |
| part | the day, the UCUM unit, the fate, or the number of the part of the distribution |
| edge | upper end of a part of the distribution, in the concept's unit; null for the last |
| rows | how many rows |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from orchestration import catalog, dbt, dictionary, input_layer
from orchestration.expressions import literal, quoted

MODELS = ("items_mapped", "meanings", "copies", "measurements")
SEEDS = ("concepts", "rescues", "units")
RECENT_DAYS = 28
LATE = (
    0.001  # the last day has at most this share of the rows after it, so that one wrong date moves no clock
)
PARTS = 10
LEAST_VALUES = 200  # fewer have no distribution to speak of
SAMPLE = 5_000_000  # quantiles are read from about so many values, evenly spaced
Span = tuple[str, str]  # first day and the day after the last, as ISO text
ALWAYS: Span = ("", "9999-99-99")

SCHEMA = pa.schema(
    [
        ("scope", pa.string()),
        ("measure", pa.string()),
        ("subject", pa.string()),
        ("part", pa.string()),
        ("edge", pa.float64()),
        ("rows", pa.int64()),
    ]
)
JUDGED = """
create table spellings as
select written.unit, coalesce(units.ucum, 'an unknown unit') as ucum
from (select distinct trim(unit) as unit from input.measurements) as written
left join dictionary.units as units on lower(regexp_replace(written.unit, '\\s', '', 'g')) = units.spelling;
create table judged as
select
    cast(cast(m.event_at as date) as varchar) as day, 'measurements of ' || m.source_table as feed, m.concept,
    m.concept || ' (' || m.source_table || '/' || m.code || ')' as item, m.value,
    case when m.unit_raw is null then 'no unit' else spellings.ucum end as unit,
    m.fate || coalesce(': ' || m.fate_reason, '') as fate
from harmonised.measurements as m left join spellings on m.unit_raw = spellings.unit
"""
PROFILE = """
with rows_in as (
    select spans.scope, judged.*
    from judged inner join spans on judged.day >= spans.first and judged.day < spans.beyond
),
cuts as (select concept, list(edge order by edge) as edges, count(*) + 1 as parts from edges group by concept),
parts as (
    select spans.scope, cuts.concept, unnest(range(1, parts + 1)) as part, cuts.edges from cuts cross join spans
),
counted as (
    select
        rows_in.scope, rows_in.concept,
        1 + len(list_filter(cuts.edges, lambda edge: edge < rows_in.value)) as part, count(*) as rows
    from rows_in inner join cuts using (concept)
    where rows_in.value is not null
    group by all
)
select * from (
    select scope, 'day' as measure, subject, day as part, null as edge, rows
    from days inner join spans on days.day >= spans.first and days.day < spans.beyond
    union all
    select scope, 'concept', concept, null, null, count(*) from rows_in where concept is not null group by all
    union all
    select scope, 'unit', item, unit, null, count(*) from rows_in where concept is not null group by all
    union all
    select scope, 'fate', feed, fate, null, count(*) from rows_in group by all
    union all
    select parts.scope, 'values', concept, cast(part as varchar), edges[part], coalesce(counted.rows, 0)
    from parts left join counted using (scope, concept, part)
)
order by all
"""


def measured_how(items: Sequence[str]) -> str:
    """sha256 of all but the rows: the mapping of the items (its Parquet files), the dictionary, the SQL and this code."""
    return catalog.fingerprint(
        items=[catalog.sha256_of(file) for file in sorted(items)],
        sql=[node["compiled_code"] for node in _nodes(MODELS)],
        code=catalog.code_hash(dictionary.SEEDS, Path(dictionary.__file__), Path(__file__)),
    )


class Extract:
    """The rows of one extract, judged, in a scratch database of its own."""

    def __init__(self, folder: Path, tables: Mapping[str, Sequence[str]], memory: str):
        """`folder` is empty and local; `tables` maps each input table to its Parquet files."""
        folder.mkdir()
        settings = {"memory_limit": memory, "temp_directory": str(folder / "spill")}
        self._connection = duckdb.connect(str(folder / dbt.DATABASE), config=settings)
        self._fill(tables)
        self.last_day = self._last_day()

    def _fill(self, tables: Mapping[str, Sequence[str]]) -> None:
        run = self._connection.execute
        run("create schema input; create schema dictionary; create schema steps; create schema harmonised")
        for table, files in tables.items():
            listed = ", ".join(map(literal, files))
            run(f"create view input.{table} as from read_parquet([{listed}], hive_partitioning = false)")
        for node in _nodes(SEEDS):
            types = ", ".join(
                f"{literal(c)}: {literal(t)}" for c, t in node["config"]["column_types"].items()
            )
            file = literal(str(dictionary.SEEDS / f"{node['name']}.csv"))
            run(
                f"create table dictionary.{node['name']} as from read_csv({file}, columns = {{{types}}}, header = true)"
            )
        conversions = pa.Table.from_pylist(list(dictionary.conversions()))
        self._connection.register("content", conversions)
        run("create table dictionary.conversions as from content")
        self._connection.unregister("content")
        for node in _nodes(MODELS):
            kind = "view" if node["name"] == "measurements" else "table"
            run(f"create {kind} {node['schema']}.{node['name']} as {node['compiled_code']}")
        run(JUDGED)
        days = ["select feed as subject, day from judged"]
        for table, columns in input_layer.tables().items():
            if "event_at" in columns and table != "measurements":
                days.append(
                    f"select {literal(table)}, cast(cast(event_at as date) as varchar) from input.{quoted(table)}"
                )
        run(
            f"create table days as select subject, day, count(*) as rows from ({' union all '.join(days)}) group by all"
        )

    def _last_day(self) -> str:
        return (
            self._connection.execute(
                f"""select max(day) from
                    (select day, sum(sum(rows)) over (order by day desc) as from_here_on from days group by day)
                    where from_here_on > {LATE} * (select sum(rows) from days)"""
            ).fetchall()[0][0]
            or ""
        )

    def profile(self) -> pa.Table:
        """What is kept of the extract to compare the next one with."""
        return self.counts({"whole": ALWAYS, "recent": full_days_before(self.last_day)}, self.edges())

    def counts(self, scopes: Mapping[str, Span], edges: pa.Table) -> pa.Table:
        """Counts of SCHEMA in each scope; `edges` (concept, edge) cut the values of each concept into parts."""
        spans = pa.Table.from_pylist([{"scope": n, "first": a, "beyond": b} for n, (a, b) in scopes.items()])
        self._connection.register("spans", spans)
        self._connection.register("edges", edges)
        return self._connection.sql(PROFILE).to_arrow_table().cast(SCHEMA)

    def edges(self) -> pa.Table:
        """Where the values of each concept divide into PARTS parts of equal size, as far as they differ."""
        tenths = [n / PARTS for n in range(1, PARTS)]
        return self._connection.sql(
            f"""with numbers as (select concept, value, rowid as place from judged where value is not null),
                cut as (select concept, quantile_disc(value, {tenths}) as edges from numbers
                        where place % (select 1 + count(*) // {SAMPLE} from numbers) = 0
                        group by concept having count(*) >= {LEAST_VALUES})
                select distinct concept, unnest(edges) as edge from cut order by all"""
        ).to_arrow_table()

    def __enter__(self) -> Extract:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def edges_of(profile: pa.Table) -> pa.Table:
    """The edges (concept, edge) between which a profile has counted."""
    whole = pc.field("scope") == "whole"
    cut = profile.filter(whole & (pc.field("measure") == "values") & pc.field("edge").is_valid())
    return pa.table({"concept": cut["subject"], "edge": cut["edge"]})


def full_days_before(day: str, days: int = RECENT_DAYS) -> Span:
    """The span of the last full days before `day`, which itself may be half delivered."""
    return ((date.fromisoformat(day) - timedelta(days)).isoformat() if day else "", day)


def _nodes(names: Sequence[str]) -> list[dict]:
    """The manifest's seeds and models of these names, in their order."""
    by_name = _seeds_and_models(dbt.parse_key())
    return [by_name[name] for name in names]


@cache
def _seeds_and_models(parsed_as: str) -> dict[str, dict]:
    nodes = dbt.manifest()["nodes"].values()
    return {n["name"]: n for n in nodes if n["resource_type"] in ("model", "seed")}
