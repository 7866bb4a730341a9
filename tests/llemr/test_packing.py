"""Rows of many questions: which question sees what, what is trained, and that packing changes no loss."""

import numpy as np
import polars as pl
import pytest
import torch

from ray_jobs.llemr import packing
from ray_jobs.llemr.data import Questions, questions_of
from ray_jobs.llemr.model import splice
from ray_jobs.llemr.packing import FLEX_BLOCK, pack
from ray_jobs.llemr.plan import Plan
from ray_jobs.llemr.reading import Reader
from ray_jobs.llemr.recipe import BaseModelRecipe
from ray_jobs.llemr.tokenizer import prompt_parts
from ray_jobs.llemr.tokens import EventFeatures
from tests.llemr.conftest import asked


def test_splice_puts_vectors_where_the_placeholders_stood():
    inputs = torch.zeros(2, 3, 4)
    out = splice(inputs, torch.tensor([1, 5]), torch.tensor([[1.0] * 4, [2.0] * 4]))
    assert out[0, 1].tolist() == [1] * 4 and out[1, 2].tolist() == [2] * 4 and out.sum() == 12


def test_only_answer_tokens_are_trained():
    batch = pack(
        [1],
        [(np.array([7, 8]), [(np.array([11, 12]), np.array([21, 2])), (np.array([13]), np.array([22, 2]))])],
    )
    assert batch.ids.tolist() == [[1, 0, 0, 11, 12, 21, 2, 13, 22, 2]]
    assert batch.position.tolist() == [[0, 1, 2, 3, 4, 5, 6, 3, 4, 5]]
    assert batch.segment.tolist() == [[0, 0, 0, 1, 1, 1, 1, 2, 2, 2]]
    assert batch.target_at.tolist() == [4, 5, 7, 8]  # the last question token predicts the answer's first
    assert batch.target.tolist() == [21, 2, 22, 2]
    mask = batch.mask()[0, 0]
    assert (
        mask[7].tolist() == [True] * 3 + [False] * 4 + [True] + [False] * 2
    )  # question 2 sees the record and itself


def test_each_record_goes_into_the_fullest_row_that_has_room_for_it(monkeypatch):
    monkeypatch.setattr(packing, "SLACK", 1.0)
    units = [(np.arange(n), []) for n in (2, 5, 9, 3, 5, 2)]  # first fit would need a third row of 13
    units[0] = (units[0][0], [(np.empty(0, int), np.empty(0, int))])
    batch = pack([], units, row_length=13)
    assert batch.ids.shape == (2, 13) and (batch.record >= 0).all()


def test_rows_have_the_length_at_which_little_is_padding():
    batch = pack(
        [], [(np.arange(n), [(np.empty(0, int), np.empty(0, int))]) for n in (6, 6, 4, 4)], row_length=25
    )
    assert batch.ids.shape == (2, 10)  # one row of 20 has as many slots, four of 6 have more


def test_rows_are_multiples_where_they_must_be():
    units = [(np.arange(n), [(np.empty(0, int), np.empty(0, int))]) for n in (70, 60, 60, 20)]
    assert pack([], units, row_length=300, multiple=64).ids.shape == (2, 128)


def test_the_last_mlp_at_trained_positions_alone_changes_no_logit_and_no_gradient(weights, store, vectors):
    model = weights.model()
    units = [
        (np.array([0, 1]), [(np.array([11, 5]), np.array([12, 2])), (np.array([7]), np.array([6, 9, 2]))])
    ]
    batch = pack([1], units)
    given = EventFeatures(weights.features, store, vectors)[batch.events]

    def learnt() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        logits, loss = model(batch, given)
        loss.backward()
        return logits, [p.grad.clone() for p in model.parameters()]

    logits, gradients = learnt()
    mlp = model.lm.base_model.layers[-1].mlp
    seen = []
    hook = mlp.down_proj.register_forward_hook(
        lambda _, given, out: seen.append(out.numel() // out.shape[-1])
    )
    learnt()
    hook.remove()
    assert seen == [len(batch.target)]
    model.lm.gradient_checkpointing_enable(
        {"use_reentrant": False}
    )  # layers computed twice are left as they are
    model.train()
    whole, expected = learnt()
    assert torch.allclose(logits, whole, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(gradients, expected, strict=True))


def test_loss_is_the_mean_of_hand_computed_cross_entropies(weights, store, vectors):
    model = weights.model()
    features = EventFeatures(weights.features, store, vectors)
    batch = pack([1], [(np.array([0, 1]), [(np.array([11, 5]), np.array([12, 2]))])])
    logits, loss = model(batch, features[batch.events])
    embed = weights.lm.get_input_embeddings()
    whole = torch.cat(
        [
            embed(torch.tensor([1])),
            weights.projector(features[np.array([0, 1])]),
            embed(torch.tensor([11, 5, 12, 2])),
        ]
    )
    plain = weights.lm(inputs_embeds=whole[None]).logits[0, [4, 5]]
    assert torch.allclose(logits, plain, atol=1e-5)
    by_hand = -plain.log_softmax(-1)[[0, 1], [12, 2]].sum()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_packed_equals_unpacked(weights, store, vectors):
    features = EventFeatures(weights.features, store, vectors)
    parts = prompt_parts(weights.tokenizer)
    q = questions_of(asked(), store, weights.tokenizer, parts, 96)
    model = weights.model()
    rows = [
        (q.records[r], [(q.prompt[i], q.answer[i]) for i in many]) for r, many in enumerate(q.by_record())
    ]
    packed = pack(parts[0], rows)
    with torch.inference_mode():
        together, _ = model(packed, features[packed.events])
        alone = []
        for record, pairs in rows:
            for pair in pairs:
                single = pack(parts[0], [(record, [pair])])
                alone.append(model(single, features[single.events])[0])
    assert (together - torch.cat(alone)).abs().max() < 1e-4


def test_flex_attention_gives_the_losses_of_sdpa(weights, store, vectors):
    """Uncompiled, as flex attention needs a C++ compiler on a CPU; on a GPU it is compiled."""
    features = EventFeatures(weights.features, store, vectors)
    parts = prompt_parts(weights.tokenizer)
    q = questions_of(asked(), store, weights.tokenizer, parts, 96)
    rows = [(q.records[r], [(q.prompt[i], q.answer[i]) for i in m]) for r, m in enumerate(q.by_record())]
    model = weights.model().eval()
    batch = pack(parts[0], rows, 64, FLEX_BLOCK)
    assert batch.ids.shape[1] == FLEX_BLOCK and len(batch.ids) > 1
    with torch.inference_mode():
        expected, _ = model(batch, features[batch.events])
        model.lm.set_attn_implementation("flex_attention")
        try:
            with torch.compiler.set_stance("force_eager"):
                logits, _ = model(batch, features[batch.events])
        finally:
            model.lm.set_attn_implementation("sdpa")
    assert torch.allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize(("balance", "low", "high"), [(0.0, 0.05, 0.15), (1.0, 0.4, 0.6)])
def test_records_with_rare_families_of_questions_are_read_more_often(balance, low, high):
    families = ["exists"] * 10 + ["extreme"] * 90
    one = [np.array([1], np.int32)] * 100
    frame = pl.DataFrame({"family": families})
    questions = Questions(
        frame, one, one, np.arange(100, dtype=np.int32), [np.array([i]) for i in range(100)]
    )
    recipe = BaseModelRecipe(balance=balance, batch_tokens=3 * 4000, withheld=0.0)
    rows = Reader(torch.nn.Linear(2, 2), None, questions, [], recipe, 0)._rows(events=1)
    assert len(rows) == 4000 and low < np.mean([seen[0] < 10 for seen, _ in rows]) < high


def test_plan_is_a_function_of_seed_and_step(weights, store):
    q = questions_of(asked(), store, weights.tokenizer, prompt_parts(weights.tokenizer), 96)
    one, two = Plan(q, 4, 0.3, seed=5), Plan(q, 4, 0.3, seed=5)
    for step in (7, 0, 3):
        a, b = one.step(step), two.step(step)
        assert [(r.events.tolist(), r.questions.tolist()) for r in a] == [
            (r.events.tolist(), r.questions.tolist()) for r in b
        ]
    seen = sorted(i for step in range(3) for row in one.step(step) for i in row.questions)
    assert seen == sorted([*range(len(q)), *range(len(q))])  # 6 records, 4 a step: two epochs in three steps
