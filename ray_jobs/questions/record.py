"""Records: what of a visit was known at a cut-off. A question is asked of one record and sees nothing else.

A cut-off is the `available_at` of the visit's n-th event by availability, with n drawn from the visit's hash, so the
number of visible events spreads over the given ranges whatever the length of the visit. As n is drawn before the record
is looked at, and ranges are tried from short to long, nothing later than a cut-off has a say in what is asked there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ray_jobs.questions import draw

VISIT = ["hospital", "patient_id", "visit_id"]
COLUMNS = [*VISIT, "event_at", "available_at", "kind", "concept", "value", "unit", "text", "row_id"]


@dataclass(frozen=True)
class Records:
    """`records`: one row a record (rec, key, visit_key, slot, hospital, patient_id, visit_id, cutoff_at, admitted_at,
    split, n_visible). `visible`: one row an event a record can see (rec, key, hour, event_at, kind, concept, value,
    unit, text, row_id), sorted by rec, event_at, row_id; `hour` is hours since admission."""

    records: pl.DataFrame
    visible: pl.DataFrame


def build(events: pl.DataFrame, splits: pl.DataFrame, cutoffs: list[list[int]]) -> Records:
    """Cut every visit at up to one place a range of `cutoffs` ([[5, 14], [14, 36], ...], visible events).

    events: harmonised/events. splits: the splits table. Visits without an admission event are left out, and so are
    patients without a split.
    """
    events = (
        events.select(COLUMNS)
        .drop_nulls(["visit_id", "event_at", "available_at"])
        .sort(*VISIT, "available_at", "event_at", "kind", "row_id")
        .with_columns(n=pl.int_range(1, pl.len() + 1).over(VISIT).cast(pl.Int64))
        .with_columns(n_upto=pl.col("n").max().over([*VISIT, "available_at"]))
    )
    admitted = (
        events.filter(pl.col("kind") == "admission")
        .sort(*VISIT, "event_at", "row_id")
        .group_by(VISIT, maintain_order=True)
        .agg(admitted_at=pl.col("event_at").first(), admission_known_at=pl.col("available_at").first())
    )
    visits = admitted.join(
        splits.select("hospital", "patient_id", "split"), on=["hospital", "patient_id"], maintain_order="left"
    )
    visits = visits.with_columns(draw.keys_of(visits, VISIT).alias("visit_key"))
    cuts = [_cut(visits, events, slot, low, high) for slot, (low, high) in enumerate(cutoffs)]
    ceiling = max(high for _, high in cutoffs)
    records = (
        pl.concat(cuts)
        .filter(
            (pl.col("cutoff_at") >= pl.col("admission_known_at")) & pl.col("n_visible").is_between(2, ceiling)
        )
        .sort(*VISIT, "slot")
        .unique([*VISIT, "cutoff_at"], keep="first", maintain_order=True)
        .with_row_index("rec")
    )
    names = records.select(*VISIT, pl.col("slot").cast(pl.String))
    records = records.with_columns(draw.keys_of(names, names.columns).alias("key"))
    visible = (
        records.select("rec", "key", *VISIT, "cutoff_at", "admitted_at")
        .join(events, on=VISIT)
        .filter(pl.col("available_at") <= pl.col("cutoff_at"))
        .with_columns(hour=(pl.col("event_at") - pl.col("admitted_at")).dt.total_seconds() / 3600)
        .drop(*VISIT, "cutoff_at", "admitted_at", "n", "n_upto", "available_at")
        .sort("rec", "event_at", "row_id", "text")
    )
    return Records(records, visible)


def _cut(visits: pl.DataFrame, events: pl.DataFrame, slot: int, low: int, high: int) -> pl.DataFrame:
    """One cut-off a visit with at least n events, n spread evenly on a logarithmic scale over [low, high]."""
    spread = low * (high / low) ** draw.share(visits["visit_key"], f"cutoff {slot}")
    return (
        visits.with_columns(slot=pl.lit(slot), n=pl.Series(np.floor(spread).astype(np.int64)))
        .join(events.select(*VISIT, "n", "n_upto", "available_at"), on=[*VISIT, "n"], maintain_order="left")
        .rename({"available_at": "cutoff_at", "n_upto": "n_visible"})
        .drop("n")
    )
