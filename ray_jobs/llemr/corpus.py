"""What a training worker loads once: events, their features, and the questions of the train split.

A worker is told URLs, not data, so that it can run on any machine that reaches the data root.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ray_jobs.config import JobError
from ray_jobs.llemr.checkpoint import Weights
from ray_jobs.llemr.data import EventStore, Questions, questions_of, read_frames, text_vectors
from ray_jobs.llemr.dialect import Dialect
from ray_jobs.llemr.reading import DialectEvents
from ray_jobs.llemr.tokenizer import prompt_parts
from ray_jobs.llemr.tokens import EventFeatures, V1Features, event_features

NEEDED = ["hospital", "visit_id", "cutoff_at", "question", "split"]


@dataclass
class Corpus:
    """Events, features and train questions, in the terms of one model's tokenizer."""

    store: EventStore
    features: EventFeatures | V1Features
    questions: Questions
    before: list[int]

    @classmethod
    def load(cls, source: Mapping[str, object], weights: Weights) -> Corpus:
        """`source`: events (URLs), instructions (URLs by set), says (the column that is taught), embeddings (URL of the
        version), dictionary (by concept).

        Raises JobError if there is no train question.
        """
        frame = pl.concat(
            [read_frames(urls, [*NEEDED, source["says"]]) for urls in source["instructions"].values()]
        )
        frame = frame.rename({source["says"]: "says"}).filter(pl.col("split") == "train")
        if frame.is_empty():
            raise JobError(
                f"no train question in {', '.join(source['instructions'])}; the train split needs patients"
            )
        store = EventStore.read(source["events"], source["dictionary"])
        vectors = text_vectors(source["embeddings"], weights.features.texts_of(store))
        features = event_features(weights.features, store, vectors)
        parts = prompt_parts(weights.tokenizer)
        budget = int(weights.settings["event_budget"])
        return cls(store, features, questions_of(frame, store, weights.tokenizer, parts, budget), parts[0])

    def train_events(self) -> np.ndarray:
        """Indices of all events that any train question reads."""
        return np.unique(np.concatenate(self.questions.records))


def dialect_events(weights: Weights, store: EventStore) -> DialectEvents | None:
    """The store in the dialect that the base model reads; None if it was taught none (a pretrained model)."""
    spoken = weights.settings.get("dialect")
    if not spoken:
        return None
    rarity = {int(token): weight for token, weight in spoken["rarity"].items()}
    width = weights.lm.config.hidden_size
    dialect = Dialect(weights.tokenizer, store.texts, store.units, width, int(spoken["seed"]), rarity)
    return DialectEvents(dialect, weights.features, store)


def rows_of(corpus: Corpus, rows: Sequence) -> list[tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]]:
    """Rows of a plan as `packing.pack` takes them."""
    asked = corpus.questions
    return [(row.events, [(asked.prompt[i], asked.answer[i]) for i in row.questions]) for row in rows]
