"""One task by hospital, sex, age and year: who the patients of its rows are, and how well each contestant ranks them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ray_jobs.prediction.comparison import Compared
from ray_jobs.statistics import Interval, Ranking, bounds


def auroc(one: Compared, name: str, mask: np.ndarray) -> Interval:
    """AUROC of one contestant over some rows, bool [n], with the interval of the task's own draws."""
    mask = mask & one.told(name)
    labels, scores, owners = one.labels[mask], one.scores[name][mask], one.bootstrap.patient[mask]
    ranking, whole = Ranking(labels, scores, owners), np.ones((1, one.bootstrap.n_patients), np.int64)
    value = ranking.figures(whole, ["auroc"])["auroc"][0]
    draws = ranking.figures(one.bootstrap.times_drawn, ["auroc"])["auroc"]
    return Interval(float(value), *bounds(draws), int(mask.sum()), len(np.unique(owners)))


def groups(one: Compared, known: pl.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name of a grouping, of a group, and its rows as bool [n].

    known: for each of the rows, in their order, the columns hospital, sex and age (null where it is not known).
    """
    ages = known["age"].cut(
        [40, 65, 80], labels=["under 40", "40 to 64", "65 to 79", "80 and over"], left_closed=True
    )
    columns = {
        "hospital": known["hospital"], "sex": known["sex"], "age": ages.cast(pl.String),
        "year": one.rows["prediction_time"].dt.year().cast(pl.String),
    }  # fmt: skip
    for name, column in columns.items():
        for group in sorted(column.drop_nulls().unique()):
            yield name, group, (column == group).fill_null(False).to_numpy()


def people_of(rows: pl.DataFrame, splits: pl.DataFrame, admissions: pl.DataFrame) -> pl.DataFrame:
    """hospital, sex and age of each row, as the newest admission that was known by then tells them; in the order of `rows`.

    splits: subject_id, hospital; admissions: subject_id, available_at, value (age), text.
    """
    said = admissions.select(
        "subject_id",
        pl.col("available_at").alias("prediction_time"),
        pl.col("value").alias("age"),
        pl.col("text").str.extract(r"^admission: [^,]*, (.+)$").alias("sex"),
    ).sort("prediction_time", "subject_id", "age", "sex")
    placed = rows.with_row_index("place").sort("prediction_time")
    told = placed.join_asof(
        said, on="prediction_time", by="subject_id", strategy="backward", check_sortedness=False
    )
    return told.join(splits, on="subject_id", how="left").sort("place").select("hospital", "sex", "age")
