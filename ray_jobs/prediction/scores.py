"""Clinical scores as one column: what a visit's points were by the time of a prediction."""

from __future__ import annotations

import numpy as np
import polars as pl

VISIT = ["hospital", "visit_id"]


def points_known(scores: pl.DataFrame, column: str, labelled: pl.DataFrame) -> np.ndarray | None:
    """float64 [labels], in order: each visit's newest points known by the prediction, 0 where nothing is; None if nowhere."""
    found = newest_known(scores, labelled)[column].cast(pl.Float64)
    return None if found.null_count() == len(found) else found.fill_null(0).to_numpy()


def newest_known(scores: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    """One row a label, in order: its visit's newest score with known_at up to prediction_at, null where there is none."""
    asked = labelled.select(*VISIT, "prediction_at").with_row_index("row")
    known = (
        asked.join(scores.drop("patient_id"), on=VISIT, how="inner")
        .filter(pl.col("known_at") <= pl.col("prediction_at"))
        .sort("row", "known_at")
        .unique("row", keep="last", maintain_order=True)
    )
    return asked.select("row").join(known, on="row", how="left", maintain_order="left")
