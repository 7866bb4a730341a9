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


def losses(made: Trainer, steps: range) -> list[float]:
    return [made.step(step)[0] for step in steps]


@pytest.mark.parametrize(("zero", "offload"), [(2, "optimizer"), (3, "all")])
def test_offloaded_states_train_and_resume_as_those_that_stay(weights, corpus, zero, offload, tmp_path):
    stays = losses(trainer(weights, corpus, zero_stage=zero), range(4))
    offloaded, again = (trainer(weights, corpus, zero_stage=zero, offload=offload) for _ in range(2))
    assert offloaded.engine.zero_cpu_offload()
    goes = losses(offloaded, range(2))
    offloaded.save(tmp_path)
    again.load(tmp_path)
    assert goes + losses(again, range(2, 4)) == pytest.approx(stays, abs=1e-6) and stays[3] < stays[0]


def test_a_frozen_language_model_is_not_shared_out(weights, corpus):
    assert (
        trainer(weights, corpus, frozen=True, zero_stage=3, offload="all").engine.zero_optimization_stage()
        == 2
    )
    assert trainer(weights, corpus, zero_stage=3).engine.zero_optimization_stage() == 3


def test_a_checkpoint_by_time_is_agreed_on(weights, corpus):
    made = trainer(weights, corpus, zero_stage=0)
    assert [made.agreed(said) for said in (True, False)] == [True, False]


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_gradients_of_bf16_are_added_up_in_fp32(weights, corpus, zero, tmp_path):
    made = trainer(weights, corpus, zero_stage=zero, precision="bf16")
    assert made.engine.get_data_types()[1] == (torch.float32 if zero else torch.bfloat16)
    first = losses(made, range(3))
    made.save(tmp_path)
    after = losses(made, range(3, 6))
    again = trainer(weights, corpus, zero_stage=zero, precision="bf16")
    again.load(tmp_path)
    assert losses(again, range(3, 6)) == after and after[-1] < first[0]


def test_the_projector_keeps_the_digits_of_its_features_in_bf16():
    torch.manual_seed(0)
    projector = Projector(8, 16).to(torch.bfloat16)
    seen = torch.full((2, 8), 1000.0)
    seen[1] += 1.5  # bf16 has no number between 1000 and 1004
    first, second = projector(seen)
    exact = Projector(8, 16)
    exact.load_state_dict(projector.state_dict())
    assert first.dtype == torch.float32 and torch.equal(torch.stack([first, second]), exact(seen))
    assert not torch.equal(first, second)
