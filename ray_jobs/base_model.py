"""Job: the language model that training starts from.

By default a tiny Llama with its own tokenizer, trained here from scratch until it reads: on altered copies of the train
split's records, written in the dialect that the projector will speak, and on schema questions about them. With
`base_model.path` in the recipe, any Hugging Face causal language model in a local directory or at an fsspec URL instead; it is
pointed to, not copied.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import polars as pl
import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from orchestration import catalog
from ray_jobs import plots
from ray_jobs.cluster import cores
from ray_jobs.config import JobError
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.data import EventStore, dictionary, questions_of, read_frames
from ray_jobs.llemr.dialect import Dialect, word_rarity
from ray_jobs.llemr.reading import DialectEvents, Reader, new_llama
from ray_jobs.llemr.recipe import Recipe
from ray_jobs.llemr.replicas import read_and_ask
from ray_jobs.llemr.tokenizer import prompt_parts, train_tokenizer
from ray_jobs.llemr.tokens import Features
from ray_jobs.runtime import Job, main

KEY = "weights/base_model"
CONCEPTS = str(catalog.REPOSITORY / "dbt_project/seeds/concepts.csv")


def run(job: Job) -> None:
    recipe = Recipe.of(job.params["recipe"])
    settings = recipe.base_model
    if settings is None:
        raise JobError(f"recipe {recipe.name}: base_model is missing; add it")
    torch.set_num_threads(settings.threads or cores())
    splits = read_frames(job.files("splits"))
    train = splits.filter(pl.col("split") == "train")
    events = read_frames(job.files("harmonised/events")).join(
        train, on=["hospital", "patient_id"], how="semi"
    )
    if events.is_empty():
        raise JobError("harmonised/events has no event of a train patient; add a hospital or patients")
    store = EventStore.of(events, dictionary(CONCEPTS))
    features = Features.fit(store, np.arange(len(store.start) - 1), embedding_width(job), recipe.token)
    if settings.path:
        point(job, recipe, features)
    else:
        learn(job, recipe, events, splits, features)


def embedding_width(job: Job) -> int:
    """Dimensions of the frozen encoder, from the embeddings that the job was given."""
    key = next(k for k in job.config.inputs if k.startswith("embeddings/"))
    return int(np.load(job.path(key) / "vectors.npy", mmap_mode="r").shape[1])


def point(job: Job, recipe: Recipe, features: Features) -> None:
    """Publish a pointer to a model that is there. Raises JobError if it cannot be trained as it lies there."""
    settings = recipe.base_model
    where = f"recipe {recipe.name}: base_model"
    folder = checkpoint.fetched(settings.path)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise JobError(
            f"{where}.path: {settings.path} has no config.json with *.safetensors; give the absolute path or the URL of a "
            "Hugging Face causal language model (docs/training.md says how to convert *.bin)"
        )
    speaks(checkpoint.read_tokenizer(folder, settings.chat_template), where)
    kept = {"event_budget": recipe.event_budget, "dialect": None, "chat_template": settings.chat_template}
    weights = checkpoint.Weights(None, None, features, None, kept)
    publish(job, weights, recipe, {}, {"path": settings.path}, lm_at=settings.path)


def speaks(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Raises JobError if a question cannot be put in the tokenizer's words."""
    if not tokenizer.chat_template:
        raise JobError(
            f"{where}.chat_template: the tokenizer has none; give one, as ray_jobs/recipes/vicuna-7b.yaml does"
        )
    try:
        prompt_parts(tokenizer)
    except (ValueError, TypeError, TemplateError) as error:
        raise JobError(
            f"{where}.chat_template: no question can be put with it ({type(error).__name__}); it must say the user's content "
            "once, as it is"
        ) from None
    if tokenizer.eos_token_id is None:
        raise JobError(f"{where}.path: the tokenizer has no eos_token, which ends an answer; set it there")


def learn(job: Job, recipe: Recipe, events: pl.DataFrame, splits: pl.DataFrame, features: Features) -> None:
    """Train the tiny model until it reads, and publish it."""
    settings = recipe.base_model
    concepts = pl.read_csv(CONCEPTS)
    copies, asked = read_and_ask(events, splits, concepts, settings.replicas, recipe.seed)
    if asked.is_empty():
        raise JobError(
            "no question can be asked of the train split's records; they need an admission and measurements"
        )
    asked = asked.with_columns(says=recipe.says)
    real = pl.concat(
        read_frames(job.files(f"instructions/{name}"))
        .filter(pl.col("split") == "train")
        .select("question", says=recipe.says)
        for name in ("schema_alignment", "clinical_reasoning")
    )
    store = EventStore.of(copies, dictionary(CONCEPTS))
    said = pl.concat([real, asked.select("question", "says")])
    texts = [*said["question"], *said["says"], *store.texts, *store.units]
    tokenizer = train_tokenizer((t.lower() for t in texts), settings.vocabulary)
    rarity = word_rarity(tokenizer, store.texts)
    dialect = Dialect(tokenizer, store.texts, store.units, settings.width, recipe.seed, rarity)
    parts = prompt_parts(tokenizer)
    questions = questions_of(asked, store, tokenizer, parts, recipe.event_budget)
    lm = new_llama(settings, tokenizer, recipe.seed)
    job.log.info(
        "%.2f M parameters, %d words, %d questions on %d altered records of the train split",
        *(
            sum(p.numel() for p in lm.parameters()) / 1e6,
            len(tokenizer),
            len(questions),
            len(questions.records),
        ),
    )
    reader = Reader(lm, DialectEvents(dialect, features, store), questions, parts[0], settings, recipe.seed)
    metrics = reader.run(job.log)
    kept = {"event_budget": recipe.event_budget, "dialect": {"seed": recipe.seed, "rarity": rarity}}
    weights = checkpoint.Weights(lm, tokenizer, features, None, kept)
    shown = {**metrics, "loss_curve": plots.loss_curve({"train": reader.history}, "learning to read")}
    publish(job, weights, recipe, metrics, shown)


def publish(
    job: Job,
    weights: checkpoint.Weights,
    recipe: Recipe,
    metrics: dict,
    shown: dict,
    lm_at: str | None = None,
) -> None:
    folder = job.output(KEY)
    checkpoint.save(folder, weights, recipe.model_dump(), metrics, job.config.inputs, lm_at)
    checkpoint.seal(folder)
    job.publish({KEY: shown})


if __name__ == "__main__":
    main(run)
