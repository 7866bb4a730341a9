"""DeepSpeed's engine in this process, as one worker on the CPU: what a recipe's keys make of it."""

import gc

import pytest
import torch
import torch.distributed as dist

from ray_jobs.llemr.corpus import Corpus
from ray_jobs.llemr.data import questions_of
from ray_jobs.llemr.engine import Trainer
from ray_jobs.llemr.model import Llemr, Projector
from ray_jobs.llemr.plan import Plan
from ray_jobs.llemr.recipe import Recipe
from ray_jobs.llemr.tokenizer import prompt_parts
from ray_jobs.llemr.tokens import EventFeatures
from tests.llemr.conftest import asked

STAGE = {"sets": ["schema_alignment"], "steps": 6, "rows": 4, "micro_batch_rows": 2, "lr": 0.01, "warmup": 0}
RECIPE = {"name": "some", "hardware": "any", "memory_per_worker_gb": 4, "stage1": STAGE, "stage2": STAGE}


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory):
    """This process is the only worker."""
    file = tmp_path_factory.mktemp("group") / "store"
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
            environment.setenv(name, value)
        environment.setenv("DS_ACCELERATOR", "cpu")
        dist.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
        yield
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def corpus(store, weights, vectors) -> Corpus:
    parts = prompt_parts(weights.tokenizer)
    questions = questions_of(asked(), store, weights.tokenizer, parts, 96)
    return Corpus(store, EventFeatures(weights.features, store, vectors), questions, parts[0])


def trainer(weights, corpus, frozen: bool = False, **change) -> Trainer:
    recipe = Recipe.of(RECIPE | change)
    torch.manual_seed(0)
    lm = type(weights.lm)(weights.lm.config)
    lm.requires_grad_(not frozen)
    model = Llemr(lm, Projector(weights.features.width, weights.lm.config.hidden_size))
    plan = Plan(corpus.questions, 4, 0.0, 1)
    return Trainer(model, corpus, plan, recipe.stage2, recipe, 6)


def held() -> int:
    """Bytes of all tensors of this process."""
    gc.collect()
    found = (o for o in gc.get_objects() if issubclass(type(o), torch.Tensor))
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}.values())


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_a_phase_that_is_done_leaves_nothing_behind(weights, corpus, zero):
    before = held()
    made = trainer(weights, corpus, zero_stage=zero)
    made.step(0)
    used = held() - before
    made.close()
    assert used > 4 * 4 * sum(p.numel() for p in weights.lm.parameters()) / 2  # weights and AdamW's states
    assert held() - before < used / 100
