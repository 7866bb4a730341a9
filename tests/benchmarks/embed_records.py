"""Encoding records: distinct texts, sorted by length, in batches by token budget, against padded batches of 32 in the order of
the labels; equal output first.

python -m tests.benchmarks.embed_records    # the packaged encoder; at 24 hours three labels share a record, at discharge one

`ratio_sorted_only` is the same against the same distinct texts: what sorting alone gives. One process each; no Ray.
"""

import argparse
import json
import time
from datetime import timedelta

import numpy as np
import polars as pl

from ray_jobs.llemr.data import dictionary
from ray_jobs.predict_from_text import CONCEPTS
from ray_jobs.records.encoder import Asked, Encoder, Settings
from ray_jobs.records.listing import List
from ray_jobs.records.walk import Costs, serialise
from tests.timeline import timeline

BUDGET = 500
AT_24_HOURS = 3  # labels: mortality, length of stay, diagnoses


def records(encoder: Encoder, admissions: int) -> list[Asked]:
    """One entry a label, by patient and time."""
    events, _ = timeline(admissions)
    begun = events.filter(pl.col("kind") == "admission").select("hospital", "patient_id", "event_at")
    ended = events.filter(pl.col("kind") == "discharge").select("hospital", "patient_id", "event_at")
    early = begun.with_columns(pl.col("event_at") + timedelta(hours=24))
    rows = pl.concat([*[early] * AT_24_HOURS, ended]).rename({"event_at": "prediction_at"}).sort(pl.all())
    digits = {concept: digits for concept, (digits, *_) in dictionary(CONCEPTS).items()}
    return [(text, "") for text in serialise(List(Costs(encoder.tokens), digits, BUDGET), events, rows)]


def padded(encoder: Encoder, asked: list[Asked]) -> np.ndarray:
    """In the order of the labels, 32 at a time, padded to the longest."""
    ids = [encoder.ids(*one) for one in asked]
    return np.concatenate([encoder.batch(ids[i : i + 32]) for i in range(0, len(ids), 32)])


def once(encoder: Encoder, asked: list[Asked]) -> np.ndarray:
    distinct = {one: place for place, one in enumerate(dict.fromkeys(asked))}
    return encoder.embed(list(distinct))[[distinct[one] for one in asked]]


def timed(function, *given) -> tuple[float, np.ndarray]:
    started = time.process_time()
    found = function(*given)
    return time.process_time() - started, found


def measure(admissions: int) -> dict[str, object]:
    encoder = Encoder(Settings(instruction="none"), threads=1)
    asked = records(encoder, admissions)
    distinct = list(dict.fromkeys(asked))
    encoder.embed(distinct[:8])
    ours_s, ours = timed(once, encoder, asked)
    padded_s, theirs = timed(padded, encoder, asked)
    alone_s, _ = timed(padded, encoder, distinct)
    worst = float(np.abs(ours.astype(np.float32) - theirs.astype(np.float32)).max())
    if worst > 2e-3:
        raise SystemExit(f"the vectors differ by {worst}")
    lengths = [len(encoder.ids(*one)) for one in distinct]
    return {
        "labels": len(asked), "distinct": len(distinct), "tokens_mean": round(float(np.mean(lengths)), 1),
        "tokens_longest": max(lengths), "ours_cpu_s": round(ours_s, 2), "padded_32_cpu_s": round(padded_s, 2),
        "real_tokens_a_cpu_s": round(sum(lengths) / ours_s), "worst_difference": worst,
        "ratio_sorted_only": round(alone_s / ours_s, 2), "ratio_vs_padded_32": round(padded_s / ours_s, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--admissions", type=int, default=16)
    options = parser.parse_args()
    print(json.dumps(measure(options.admissions)))


if __name__ == "__main__":
    main()
