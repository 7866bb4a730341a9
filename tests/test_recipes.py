"""The shipped recipes: each is read strictly, states what it computes that it needs, and is refused where that is not given.

The shapes are those that the models' authors published; no weights are needed to compute with them.
"""

import re

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from orchestration import catalog
from ray_jobs import train
from ray_jobs.config import JobError
from ray_jobs.llemr import adapters, checkpoint, memory
from ray_jobs.llemr.model import Llemr, Projector
from ray_jobs.llemr.recipe import Recipe
from ray_jobs.llemr.tokens import Features

FOLDER = catalog.REPOSITORY / "ray_jobs" / "recipes"
FEATURES = 700  # of an event; a real vocabulary of kinds and units gives some hundred besides the text's 384
PUBLISHED = {  # vocabulary, width, mlp, layers, heads, key-value heads, width of a head, parameters
    "vicuna-7b": (32000, 4096, 11008, 32, 32, 32, 128, 6_738_415_616),
    "llama-3.1-8b": (128256, 4096, 14336, 32, 32, 8, 128, 8_030_261_248),
    "qwen3-4b": (151936, 2560, 9728, 36, 32, 8, 128, 4_022_468_096),
}


def shape(name: str) -> tuple[LlamaConfig, int, int]:
    """(configuration, parameters, parameters of the projector)."""
    vocabulary, width, mlp, layers, heads, grouped, head, parameters = PUBLISHED[name]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=grouped,
        head_dim=head,
    )
    with torch.device("meta"):
        return config, parameters, sum(p.numel() for p in Projector(FEATURES, width).parameters())


def test_every_shipped_recipe_is_read():
    for file in FOLDER.glob("*.yaml"):
        assert Recipe.named(file.stem).name == file.stem


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_states_the_memory_that_is_computed(name):
    recipe = Recipe.named(name)
    stated = re.findall(r"(\d+) GB in stage", recipe.hardware)  # with the fewest workers
    needed = [memory.must_fit(recipe, stage, *shape(name)).total for stage in ("stage1", "stage2")]
    assert stated == [f"{gb:.0f}" for gb in needed]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_that_will_not_fit_says_so_in_one_line(name):
    with pytest.raises(
        JobError, match=rf"^recipe {name}: stage2 needs about [\d.]+ GB a worker .*there are 16"
    ) as e:
        memory.must_fit(Recipe.named(name, memory_per_worker_gb=16), "stage2", *shape(name))
    assert "\n" not in str(e.value)


def test_a_gpu_with_less_than_the_recipe_says_is_refused():
    with pytest.raises(
        JobError, match=r"recipe vicuna-7b: stage2 needs about [\d.]+ GB a worker .*there are 30\.0"
    ):
        memory.must_fit(Recipe.named("vicuna-7b"), "stage2", *shape("vicuna-7b"), free=30.0)


def test_what_is_offloaded_counts_on_the_host():
    def needed(stage: str, **change):
        return memory.estimate(Recipe.named("vicuna-7b", **change), stage, *shape("vicuna-7b"))

    stays, states, all_of_it = (
        needed("stage2", zero_stage=3, offload=where) for where in ("none", "optimizer", "all")
    )
    assert stays.host == 0 and states.optimizer == 0
    assert stays.total - states.total >= stays.optimizer
    assert all_of_it.parameters < states.parameters and all_of_it.host > states.host > stays.optimizer
    with pytest.raises(
        JobError, match=r"recipe vicuna-7b: stage2 offloads about [\d.]+ GB a worker to its host"
    ):
        memory.must_fit(
            Recipe.named("vicuna-7b", offload="optimizer"), "stage2", *shape("vicuna-7b"), host=10.0
        )


def test_a_frozen_language_model_is_counted_whole_on_every_worker():
    one, three = (
        memory.estimate(Recipe.named("vicuna-7b", zero_stage=zero), "stage1", *shape("vicuna-7b"))
        for zero in (2, 3)
    )
    assert one == three


@pytest.mark.parametrize(("offload", "zero", "least"), [("optimizer", 0, 1), ("all", 2, 3)])
def test_offload_needs_a_stage_that_can(offload, zero, least):
    with pytest.raises(JobError, match=f"offload is {offload}, which needs zero_stage {least} or more"):
        Recipe.named("vicuna-7b", offload=offload, zero_stage=zero)


def test_the_control_needs_something_to_train():
    stage2 = Recipe.named("qwen3-4b").stage2.model_dump() | {"train": "projector"}
    with pytest.raises(JobError, match="recipe qwen3-4b: stage2: the blind control has no events to project"):
        Recipe.named("qwen3-4b", stage2=stage2)


def test_elastic_workers_are_at_most_workers():
    with pytest.raises(JobError, match="min_workers is 5, which is more than workers, 4"):
        Recipe.named("qwen3-4b", min_workers=5)


def test_adapters_are_merged_into_the_weights_that_are_published():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    lm, features = LlamaForCausalLM(config), Features([], [], {}, 4)
    stage = Recipe.named("llama-3.1-8b").stage2.model_copy(update={"lora_rank": 4})
    projector, ids = Projector(features.width, 32), torch.arange(6)[None]
    before = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    trained = Llemr(LlamaForCausalLM(config), projector)
    trained.lm.load_state_dict(before)
    adapters.add(trained.lm, stage)
    adapted = {n: p for n, p in trained.lm.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in adapted.values()) == adapters.parameters(config, 4)
    with torch.no_grad():
        for parameter in adapted.values():
            parameter.normal_(0, 0.1)
    weights = checkpoint.Weights(lm, None, features, projector)
    train.apply(weights, {f"lm.{n}": p.detach().clone() for n, p in adapted.items()}, stage)
    assert {n: t.shape for n, t in weights.lm.state_dict().items()} == {n: t.shape for n, t in before.items()}
    with torch.inference_mode():
        merged, expected = weights.lm(ids).logits, trained.lm(ids).logits
        assert torch.allclose(merged, expected, atol=1e-5)
        assert not torch.allclose(merged, LlamaForCausalLM(config)(ids).logits, atol=1e-2)
