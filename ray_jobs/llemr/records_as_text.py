"""A record in words, for the comparison with event tokens: what a language model reads that has no projector."""

from __future__ import annotations

import numpy as np
import polars as pl

from ray_jobs.llemr.data import EventStore, records_of, tokenise


def ask_in_text(frame: pl.DataFrame, store: EventStore, tokenizer, budget: int) -> pl.DataFrame:
    """`frame` with each question behind its record in words: the newest events, oldest first, in at most `budget` tokens.

    An event costs about ten tokens in words, so the record holds about a tenth of the events that the projector would give.
    """
    record, records = records_of(frame, store, budget)
    used = np.unique(np.concatenate(records)) if records else np.empty(0, np.int64)
    said = [_said(store, event) for event in used]
    cost = dict(zip(used.tolist(), map(len, tokenise(said, tokenizer)), strict=True))
    words = dict(zip(used.tolist(), said, strict=True))
    told = []
    for events in records:
        total = np.cumsum([cost[e] for e in events[::-1].tolist()])
        kept = events[len(events) - int(np.searchsorted(total, budget, side="right")) :]
        told.append(" ; ".join(words[e] for e in kept.tolist()))
    questions = [f"{told[r]} ; {q}" for r, q in zip(record, frame["question"], strict=True)]
    return frame.with_columns(question=pl.Series(questions, dtype=pl.String))


def _said(store: EventStore, event: int) -> str:
    value = store.value[event]
    number = "" if np.isnan(value) else f" {value:.{store.digits[event]}f}"
    return f"{store.hours[event]:.1f} h {store.texts[store.text[event]]}{number}"
