"""A data root with everything that an evaluation reads, and weights that have learned nothing: for tests and timings."""

from pathlib import Path

import numpy as np
import polars as pl
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from orchestration import catalog
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.data import EVENT_COLUMNS, EventStore, dictionary
from ray_jobs.llemr.model import Projector
from ray_jobs.llemr.tokenizer import train_tokenizer
from ray_jobs.llemr.tokens import Features
from ray_jobs.questions import make, registry
from tests.timeline import timeline

CONCEPTS = catalog.REPOSITORY / "dbt_project" / "seeds" / "concepts.csv"
EMBEDDINGS = "embeddings/minilm"
DIMENSIONS = 16


def house(root: Path, scratch: Path, admissions: int = 150) -> pl.DataFrame:
    """Publish events, instructions and embeddings made from a small timeline; returns the events."""
    events, splits = timeline(admissions)
    made, _ = make.make(events, splits, pl.read_csv(CONCEPTS), registry.load())
    texts = sorted(events["text"].unique())
    embedded = scratch / "embedded"
    embedded.mkdir(parents=True)
    pl.DataFrame({"row": range(len(texts)), "text": texts}).write_parquet(embedded / "texts.parquet")
    np.save(
        embedded / "vectors.npy",
        np.random.default_rng(0).normal(size=(len(texts), DIMENSIONS)).astype(np.float16),
    )
    publish(root, EMBEDDINGS, embedded)
    for key, frame in {
        "harmonised/events": events,
        "splits": splits,
        **{f"instructions/{k}": v for k, v in made.items()},
    }.items():
        folder = scratch / "tables" / key
        folder.mkdir(parents=True)
        frame.write_parquet(folder / "data.parquet")
        catalog.publish(str(root), "test", [catalog.Candidate(key, folder, catalog.fingerprint(key=key))])
    return events


def publish(root: Path, key: str, folder: Path, fingerprint: str | None = None) -> str:
    """Publish a version directory; returns its version."""
    candidate = catalog.Candidate(key, folder, fingerprint or catalog.fingerprint(key=key), table=False)
    catalog.publish(str(root), "test", [candidate])
    return candidate.version


def weights(
    folder: Path,
    events: pl.DataFrame,
    seed: int,
    embeddings: str = EMBEDDINGS,
    width: int = 48,
    layers: int = 2,
) -> Path:
    """A weights directory with random numbers in it."""
    torch.manual_seed(seed)
    store = EventStore.of(events.select(EVENT_COLUMNS), dictionary(str(CONCEPTS)))
    tokenizer = train_tokenizer(
        ["yes no low high normal higher lower what is the mg/dl mmol/l h", *store.texts], 800
    )
    features = Features.fit(store, np.arange(len(store.visits)), DIMENSIONS)
    heads = max(width // 32, 1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    projector = Projector(features.width, width)
    settings = {"event_budget": 96, "dialect": None}
    saved = checkpoint.Weights(LlamaForCausalLM(config), tokenizer, features, projector, settings)
    checkpoint.save(folder, saved, {"name": "untaught"}, {}, {embeddings: "some"})
    return folder
