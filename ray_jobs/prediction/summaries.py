"""Summaries of ICU stays as a dense matrix: one row a prediction, one column a concept, span and statistic.

All of it is made by the warehouse (features/icu_stays, features/icu_summary), in one unit a concept and from what was known
by the moment; here the moment is matched with the time of prediction, and the long table becomes a wide one.
"""

from __future__ import annotations

import numpy as np
import polars as pl

STATISTICS = (
    "n",
    "min",
    "max",
    "mean",
    "median",
    "deviation",
    "first",
    "last",
    "first_at_h",
    "last_at_h",
    "slope_per_h",
)
MOMENT = ["hospital", "patient_id", "known_at"]


def matrix(
    stays: pl.DataFrame, summary: pl.DataFrame, rows: pl.DataFrame
) -> tuple[np.ndarray, tuple[str, ...]]:
    """float32 [rows, columns] and the names of the columns; nan where nothing was measured, counts 0.

    stays, summary: rows of features/icu_stays and features/icu_summary; rows: `row`, hospital, patient_id, prediction_at.
    """
    moments = rows.select("row", "hospital", "patient_id", known_at="prediction_at")
    told = stays.join(moments, on=MOMENT, how="inner").unique("row", keep="first", maintain_order=True)
    who = moments.select("row").join(
        told.select(
            "row",
            "age",
            "care_unit",
            (pl.col("sex") == "F").alias("female"),
            ((pl.col("start_at") - pl.col("admission_at")).dt.total_minutes() / 60).alias(
                "hours before the stay"
            ),
        ),
        on="row",
        how="left",
    )
    who = who.with_columns(pl.col("care_unit").fill_null("unknown")).to_dummies("care_unit")
    wide = (
        summary.join(moments, on=MOMENT, how="inner")
        .unpivot(STATISTICS, index=["row", "concept", "last_h"], variable_name="statistic")
        .select("row", "value", feature=pl.format("{}/{}@{} h", "concept", "statistic", "last_h"))
        .pivot("feature", index="row", values="value", aggregate_function="first", sort_columns=True)
    )
    table = who.join(wide, on="row", how="left").sort("row").drop("row")
    counts = [name for name in table.columns if "/n@" in name]
    table = table.with_columns(pl.col(counts).fill_null(0)).cast(pl.Float32)
    return table.to_numpy(), tuple(table.columns)
