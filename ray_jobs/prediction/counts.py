"""Counts of the timeline as features, in DuckDB: what was known by each prediction time, and nothing later.

Plain counts are one column a code. Rich counts follow the strongest published count baseline (Hegselmann et al. 2026): each
event counts for its code and for what the code rolls up to, each number for its decile too, in four spans of time before
the prediction. Deciles and columns are fitted on the train split and frozen in `Fitted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from ray_jobs.prediction.labels import people

KINDS = ("plain", "rich")
SPANS = ("1 day", "7 days", "30 days")  # newest first; the fourth span is all that is older
FEWEST_ROWS = 5  # of the train split in which a column must be seen
DECILES = [i / 10 for i in range(1, 10)]

# feature, value: an event under its own name and under what it rolls up to
NAME = "kind || '/' || coalesce(case when kind in ('lab', 'vital', 'output', 'score') then concept end, code, concept, text)"
NUMBER = "value is not null and kind in ('lab', 'vital', 'output', 'score')"
NAMES = {
    "plain": f"[{NAME}]",
    "rich": f"""list_distinct(list_filter([
        {NAME},
        case when kind = 'diagnosis' and code_system = 'ICD10CM' then 'diagnosis/' || left(code, 3) end,
        case when kind = 'diagnosis' then 'ccsr/' || concept end,
        case when kind in ('prescription', 'infusion') then 'drug/' || concept end,
        case when kind not in ('lab', 'vital', 'output', 'score', 'diagnosis') then kind || '/' || text end,
        'kind/' || kind
    ], lambda x: x is not null))""",
}


@dataclass(frozen=True)
class Fitted:
    """What is learned from the train split: decile breaks by name (rich), and the columns in their order."""

    kind: str
    breaks: pl.DataFrame
    columns: tuple[str, ...]


class Counts:
    """Features of prediction rows over a timeline.

    events: a relation (SQL) with the columns of harmonised/events; rows: `row` (0, 1, ...), hospital, patient_id,
    prediction_at and split. Two rows at the same time are two rows.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, events: str, rows: pl.DataFrame):
        self.connection, self.rows = connection, rows
        connection.register("asked", rows.to_arrow())
        connection.execute(f"create or replace view timeline as select * from {events}")

    def fit(self, kind: str) -> Fitted:
        """Fit on the rows, and the patients, of the train split."""
        no_breaks = pl.DataFrame(schema={"name": pl.String, "breaks": pl.List(pl.Float64)})
        breaks = (
            no_breaks
            if kind == "plain"
            else self._query(
                f"select name, list_distinct(quantile_disc(value, {DECILES})) as breaks from (select {NAME} as name, value "
                "from timeline join (select distinct hospital, patient_id from asked where split = 'train') "
                f"using (hospital, patient_id) where {NUMBER}) group by name having count(*) >= 10 order by name"
            )
        )
        counted = self._counted(kind, breaks)
        train = pl.Series(self.rows.filter(pl.col("split") == "train")["row"])
        seen = counted.filter(pl.col("row").is_in(train.implode())).group_by("feature").len()
        columns = seen.filter(pl.col("len") >= FEWEST_ROWS)["feature"].sort()
        return Fitted(kind, breaks, tuple(columns))

    def table(self, fitted: Fitted) -> pl.DataFrame:
        """The sparse table: row, feature, value, sorted; only features that were fitted."""
        counted = self._counted(fitted.kind, fitted.breaks)
        return counted.filter(pl.col("feature").is_in(list(fitted.columns))).sort("row", "feature")

    def matrix(self, fitted: Fitted) -> csr_matrix:
        """float32 [rows, columns], rows in the order of `row`."""
        table = self.table(fitted)
        place = {name: i for i, name in enumerate(fitted.columns)}
        where = table["feature"].replace_strict(place, return_dtype=pl.Int32).to_numpy()
        cells = table["value"].cast(pl.Float32).to_numpy()
        return csr_matrix(
            (cells, (table["row"].to_numpy(), where)), (self.rows.height, len(fitted.columns)), np.float32
        )

    def _counted(self, kind: str, breaks: pl.DataFrame) -> pl.DataFrame:
        """All counts, and age and sex as the newest known admission tells them."""
        self.connection.register("breaks", breaks.to_arrow())
        span = "''"
        if kind == "rich":
            spans = " ".join(
                f"when available_at > prediction_at - interval {span} then '@{span}'" for span in SPANS
            )
            span = f"case {spans} else '@older' end"
        decile = "'/decile ' || (1 + len(list_filter(breaks.breaks, lambda b: b < value)))"
        numbers = (
            f"union all select hospital, patient_id, available_at, {NAME} || {decile} "
            f"from timeline join breaks on {NAME} = breaks.name where {NUMBER}"
        )
        return self._query(
            f"""with named as (
                select hospital, patient_id, available_at, unnest({NAMES[kind]}) as name from timeline
                {numbers if kind == "rich" else ""}
            ),
            admitted as (
                select "row", arg_max(value, (available_at, timeline.row_id)) as age,
                    arg_max(text, (available_at, timeline.row_id)) as text
                from asked join timeline using (hospital, patient_id)
                where kind = 'admission' and available_at <= prediction_at group by "row"
            )
            select "row", name || {span} as feature, cast(count(*) as double) as value
            from asked join named using (hospital, patient_id) where available_at <= prediction_at group by all
            union all select "row", 'age', age from admitted where age is not null
            union all select "row", 'female', 1 from admitted where text like '%, female'"""
        )

    def _query(self, sql: str) -> pl.DataFrame:
        return pl.from_arrow(self.connection.sql(sql).to_arrow_table())


def prediction_rows(labels: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """One row a distinct (hospital, patient_id, prediction_at) of `labels`, numbered, with its split and person."""
    keys = ["hospital", "patient_id", "prediction_at"]
    rows = labels.select(keys).unique().sort(keys)
    return (
        rows.join(people(splits), on=["hospital", "patient_id"], how="inner").sort(keys).with_row_index("row")
    )


def relation(files: Sequence[str]) -> str:
    """A select over exactly these local Parquet files."""
    names = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    return f"read_parquet([{names}], hive_partitioning = false)"
