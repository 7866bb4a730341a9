"""A language model from a local Hugging Face directory, with its own tokenizer and chat template, through both stages.

The model has random weights, so nothing is claimed about what it learns; the path is the one of the GPU recipes.
"""

import json
import logging
import shutil
from pathlib import Path

import fsspec
import pytest
import torch
from transformers import LlamaForCausalLM

from orchestration import catalog
from ray_jobs import base_model, train
from ray_jobs.config import JobConfig, JobError
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.recipe import Recipe
from ray_jobs.llemr.tokenizer import prompt_parts
from ray_jobs.runtime import Job
from tests import small_model, untaught

STAGE = {"steps": 4, "rows": 4, "micro_batch_rows": 2, "lr": 0.001, "warmup": 1, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("models") / "some-instruct")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("house")
    untaught.house(scratch / "root", scratch, admissions=40)
    return scratch / "root"


def job_for(root, scratch, name: str, key: str, recipe: dict, needs: list[str], **params) -> Job:
    accepted = catalog.load(str(root))
    inputs = {k: accepted.version(k) for k in needs}
    config = JobConfig(
        name, "test", str(root), catalog.fingerprint(key=key), inputs, [key], {"recipe": recipe, **params}
    )
    return Job(config, scratch, logging.getLogger(name), None)


def recipe(path) -> dict:
    return {
        "name": "some-instruct",
        "hardware": "any",
        "memory_per_worker_gb": 2,
        "cpus_per_worker": 1,
        "zero_stage": 2,
        "precision": "bf16",
        "base_model": {"path": str(path)},
        "stage1": STAGE | {"sets": ["schema_alignment"]},
        "stage2": STAGE
        | {
            "sets": ["schema_alignment", "clinical_reasoning"],
            "blind_steps": 2,
            "gradient_checkpointing": True,
        },
    }


DATA = [
    "harmonised/events",
    "instructions/schema_alignment",
    "instructions/clinical_reasoning",
    untaught.EMBEDDINGS,
]


@pytest.mark.night  # two trainings on Ray
def test_a_local_model_goes_through_both_stages_in_its_own_words(pretrained, root, tmp_path):
    job = job_for(root, tmp_path, "base_model", "weights/base_model", recipe(pretrained), [*DATA, "splits"])
    base_model.run(job)
    pointed = Path(catalog.load(str(root)).folder("weights/base_model"))
    assert json.loads((pointed / "language_model.json").read_text())["path"] == str(pretrained)
    assert not list(pointed.glob("model*.safetensors")), "the model is pointed to, not copied"
    for stage, start in (("stage1", []), ("stage2", ["weights/stage1"])):
        needs = [*DATA, "weights/base_model", *start]
        job = job_for(root, tmp_path, "train", f"weights/{stage}", recipe(pretrained), needs, stage=stage)
        train.run(job)
    first, second = (
        checkpoint.load_weights(catalog.load(str(root)).folder(f"weights/{s}")) for s in ("stage1", "stage2")
    )
    base = LlamaForCausalLM.from_pretrained(pretrained).state_dict()
    assert all(torch.equal(v, base[k]) for k, v in first.lm.state_dict().items()), "stage 1 is frozen"
    assert any(not torch.equal(v, base[k]) for k, v in second.lm.state_dict().items())
    assert second.lm_at is None and second.tokenizer.chat_template == small_model.CHAT


def test_a_path_without_a_model_is_named(root, tmp_path):
    job = job_for(root, tmp_path, "base_model", "weights/base_model", recipe(tmp_path), [*DATA, "splits"])
    with pytest.raises(JobError, match=r"base_model\.path: .* has no config\.json with \*\.safetensors"):
        base_model.run(job)


@pytest.fixture
def untaught_to_chat(pretrained, tmp_path):
    folder = shutil.copytree(pretrained, tmp_path / "plain")
    (folder / "chat_template.jinja").unlink()
    return folder


def test_a_model_without_a_chat_template_is_refused_before_training(root, tmp_path, untaught_to_chat):
    needs = [*DATA, "splits"]
    job = job_for(root, tmp_path, "base_model", "weights/base_model", recipe(untaught_to_chat), needs)
    with pytest.raises(
        JobError, match=r"^recipe some-instruct: base_model\.chat_template: the tokenizer has none"
    ):
        base_model.run(job)
    mute = recipe(untaught_to_chat)
    mute["base_model"]["chat_template"] = "{{ bos_token }}USER: hello"
    job = job_for(root, tmp_path, "base_model", "weights/base_model", mute, needs)
    with pytest.raises(JobError, match=r"base_model\.chat_template: no question can be put with it"):
        base_model.run(job)


def test_a_model_at_a_url_is_fetched_once_and_asked_in_the_words_of_the_recipe(
    root, tmp_path, untaught_to_chat
):
    url = f"memory://models{tmp_path}"
    fsspec.filesystem("memory").put(f"{untaught_to_chat}/", f"/models{tmp_path}/", recursive=True)
    settings = recipe(url)
    settings["base_model"]["chat_template"] = Recipe.named("vicuna-7b").base_model.chat_template
    base_model.run(job_for(root, tmp_path, "base_model", "weights/base_model", settings, [*DATA, "splits"]))
    loaded = checkpoint.load_weights(catalog.load(str(root)).folder("weights/base_model"))
    assert loaded.lm_at == url and isinstance(loaded.lm, LlamaForCausalLM)
    words = ("<s>USER: ", "\n", " ASSISTANT:")
    expected = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in words]
    assert list(prompt_parts(loaded.tokenizer)) == expected
    assert expected[0][0] == loaded.tokenizer.bos_token_id
    copy = checkpoint.fetched(url)
    fsspec.filesystem("memory").rm(f"/models{tmp_path}", recursive=True)
    assert checkpoint.fetched(url) == copy, "what was fetched is not fetched again"
    shutil.rmtree(copy)
