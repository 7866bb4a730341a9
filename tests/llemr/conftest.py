"""A hospital of three visits and a model of a few thousand weights, for the tests of the model's parts."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.data import EVENT_COLUMNS, EventStore
from ray_jobs.llemr.dialect import word_rarity
from ray_jobs.llemr.model import Projector
from ray_jobs.llemr.tokenizer import train_tokenizer
from ray_jobs.llemr.tokens import Features

START = datetime(2030, 1, 1, 8)


WORDS = [
    "what was the last glucose ?",
    "7.4 mmol/l",
    "8.2 10*3/ul",
    "not in the record",
    "13.5 h",
    "glucose in mg/dl",
]


def events(visits: int = 3, each: int = 12) -> pl.DataFrame:
    """Admission, then glucose and heart rate in turn, an hour apart, known half an hour later."""
    rows = []
    for v in range(visits):
        for i in range(each):
            at = START + timedelta(days=v, hours=i)
            text, value = ("glucose in mg/dl", 100.0 + v + i) if i % 2 else ("heart rate in /min", 80.0 - i)
            kind, unit, concept = ("lab", "mg/dL", "glucose") if i % 2 else ("vital", "/min", "heart_rate")
            if i == 0:
                kind, text, value, unit, concept = "admission", "admission: emergency, male", 64.0, "a", None
            known = at + timedelta(minutes=30)
            rows.append(("north", f"v{v}", at, known, kind, concept, value, unit, text, f"m:{v}-{i}"))
    return pl.DataFrame(rows, schema=EVENT_COLUMNS, orient="row")


def asked(store_visits: int = 3) -> pl.DataFrame:
    rows = [
        ("north", f"v{v}", START + timedelta(days=v, hours=h), f"what was the last {item} ?", answer)
        for v in range(store_visits)
        for h in (5, 9)
        for item, answer in (
            ("glucose", "105 mg/dl"),
            ("heart rate", "76 /min"),
            ("sodium", "not in the record"),
        )
    ]
    return pl.DataFrame(rows, schema=["hospital", "visit_id", "cutoff_at", "question", "says"], orient="row")


@pytest.fixture(scope="module")
def store() -> EventStore:
    return EventStore.of(events(), {"glucose": (0, 70, 140), "heart_rate": (0, 60, 100)})


@pytest.fixture(scope="module")
def weights(store: EventStore) -> checkpoint.Weights:
    torch.manual_seed(0)
    tokenizer = train_tokenizer([*WORDS, *asked()["question"], *asked()["says"], *store.texts], 200)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    features = Features.fit(store, np.arange(len(store.visits)), 8)
    rarity = word_rarity(tokenizer, store.texts)
    settings = {"event_budget": 96, "dialect": {"seed": 3, "rarity": rarity}}
    lm = LlamaForCausalLM(config)
    return checkpoint.Weights(lm, tokenizer, features, Projector(features.width, 32), settings)


@pytest.fixture(scope="module")
def vectors(store: EventStore) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(len(store.texts), 8)).astype(np.float32)
