"""Draws without a random generator: every choice is a hash of who is asked and what for, never of a global count.

A key is the first 8 bytes of an md5, as uint64. `mix` turns a column of keys and a purpose into new, independent
64-bit numbers (the finaliser of splitmix64, Steele et al. 2014), vectorised in numpy, equal on every machine.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl


def key_of(*parts: str) -> int:
    """One 64-bit key of some texts."""
    return int.from_bytes(hashlib.md5(chr(31).join(parts).encode()).digest()[:8], "big")


def keys_of(frame: pl.DataFrame, columns: list[str]) -> pl.Series:
    """One uint64 key a row, from the texts in `columns`."""
    return pl.Series("key", [key_of(*row) for row in frame.select(columns).iter_rows()], dtype=pl.UInt64)


def mix(keys: pl.Series, purpose: str) -> np.ndarray:
    """uint64 [n]: the keys, drawn anew for one purpose."""
    z = keys.to_numpy().astype(np.uint64) ^ np.uint64(key_of(purpose))
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def share(keys: pl.Series, purpose: str) -> np.ndarray:
    """float64 [n], uniform in [0, 1)."""
    return (mix(keys, purpose) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def weighted(keys: pl.Series, purpose: str, weights: dict[str, float]) -> pl.Series:
    """One of the names in `weights` a row, with these relative odds."""
    names, odds = list(weights), np.cumsum(list(weights.values()))
    index = np.searchsorted(odds / odds[-1], share(keys, purpose), side="right")
    return pl.Series(np.array(names, dtype=object)[np.minimum(index, len(names) - 1)], dtype=pl.String)


def pick(candidates: pl.DataFrame, level: list[str], purpose: str) -> pl.DataFrame:
    """Keep, in each record, the rows of one drawn value of `level`; every distinct value has the same chance.

    `candidates` has the columns rec (the record), key (its uint64 key) and those of `level`.
    """
    distinct = candidates.select("rec", "key", *level).unique().sort("rec", *level)
    place = distinct.with_columns(
        place=pl.int_range(pl.len()).over("rec").cast(pl.UInt64), n=pl.len().over("rec").cast(pl.UInt64)
    )
    drawn = place.with_columns(drawn=pl.Series(mix(place["key"], purpose))).filter(
        pl.col("place") == pl.col("drawn") % pl.col("n")
    )
    return candidates.join(
        drawn.select("rec", *level), on=["rec", *level], how="semi", nulls_equal=True, maintain_order="left"
    )
