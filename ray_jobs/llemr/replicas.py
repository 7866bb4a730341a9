"""Replicas: altered copies of the train split's records, so that a base model learns to read and cannot learn by heart.

A replica keeps the admission and, of a random share of the other texts of each visit, most events: few things, but each with
its course, so that even a short record can be asked about trends and extremes. It stretches time and moves every measured
value by random noise; its questions are made by the same registry as the instructions, so their answers are right
for the altered record. Nothing of the tuning or held-out patients is in it.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ray_jobs.questions import make, registry

CUTOFFS = [[4, 10], [10, 28], [28, 97]]  # visible events: many short records, for a curriculum
TRIES = {"schema_alignment": 18.0, "clinical_reasoning": 24.0}  # questions tried for each visit
NOISE, STRETCH = 0.6, (0.5, 1.5)  # standard deviations of a text's values; factor of the hours
TEXTS, KEPT = (
    (0.06, 1.0),
    (0.6, 1.0),
)  # shares of a visit's measured things (of others the root), and of their events


def replica(events: pl.DataFrame, number: int, seed: int) -> pl.DataFrame:
    """One altered copy of the given events (contract columns); visits are renamed `<visit>#<number>`."""
    rng = np.random.default_rng([seed, number])
    visits = events["visit_id"].n_unique()
    visit = events["visit_id"].rank("dense").to_numpy().astype(np.int64) - 1
    draws = pl.DataFrame(
        {
            "noise": rng.normal(0, NOISE, events.height),
            "draw": rng.random(events.height),
            "text_draw": rng.random(events.height),
            "texts": np.exp(rng.uniform(*np.log(TEXTS), visits))[visit],
            "kept": rng.uniform(*KEPT, visits)[visit],
            "stretch": rng.uniform(*STRETCH, visits)[visit],
        }
    )
    spread = pl.col("value").std().over("text").fill_null(0)
    admitted = pl.col("event_at").filter(pl.col("kind") == "admission").min().over("hospital", "visit_id")
    share = (
        pl.when(pl.col("kind") == "culture")  # rare, and much is asked of them
        .then(1.0)
        .when(pl.col("concept").is_null())
        .then(pl.col("texts").sqrt())
        .otherwise(pl.col("texts"))
    )
    told = pl.col("text_draw").first().over("hospital", "visit_id", "text") < share
    stays = told & (pl.col("draw") < pl.col("kept"))
    moved = pl.when(pl.col("concept").is_not_null()).then((pl.col("value") + pl.col("noise") * spread).abs())
    return (
        events.hstack(draws)
        .filter(admitted.is_not_null())
        .with_columns(
            _stretched("event_at", admitted),
            _stretched("available_at", admitted),
            value=moved.otherwise(pl.col("value")),
            visit_id=pl.col("visit_id") + f"#{number}",
        )
        .filter(stays | (pl.col("kind") == "admission"))
        .select(events.columns)
    )


def _stretched(column: str, admitted: pl.Expr) -> pl.Expr:
    since = (pl.col(column) - admitted).dt.total_microseconds() * pl.col("stretch")
    return (admitted + pl.duration(microseconds=since.round().cast(pl.Int64))).alias(column)


def read_and_ask(
    events: pl.DataFrame, splits: pl.DataFrame, concepts: pl.DataFrame, count: int, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(events, questions of both sets) of `count` replicas of the train split's events."""
    train = events.join(splits.filter(pl.col("split") == "train"), on=["hospital", "patient_id"], how="semi")
    train = train.filter(pl.col("visit_id").is_not_null())
    forms = registry.load()
    copies, asked = [], []
    for number in range(count):
        copy = replica(train, number, seed)
        made, _ = make.make(copy, splits, concepts, forms, tries=TRIES, cutoffs=CUTOFFS)
        copies.append(copy)
        asked += made.values()
    return pl.concat(copies), pl.concat(asked)
