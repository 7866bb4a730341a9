"""Polars tables from numpy arrays, with the same types when there are no rows."""

from __future__ import annotations

import numpy as np
import polars as pl

TYPES = {"i": pl.Int64, "f": pl.Float64, "b": pl.Boolean}


def frame(**columns: np.ndarray | str) -> pl.DataFrame:
    """A table of equally long arrays; a plain text stands for the same text in every row. Texts may be None."""
    constant = {name: pl.lit(value) for name, value in columns.items() if isinstance(value, str)}
    series = []
    for name, value in columns.items():
        if name not in constant:
            kind = TYPES.get(value.dtype.kind, pl.String)
            series.append(pl.Series(name, value.tolist() if kind == pl.String else value, dtype=kind))
    return pl.DataFrame(series).with_columns(**constant)
