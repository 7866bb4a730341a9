"""The model's parts on cases small enough to compute by hand: tokens, records, splice, loss mask, packing, checkpoint."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from ray_jobs.config import JobError
from ray_jobs.llemr import checkpoint, memory, speed
from ray_jobs.llemr.align import align, fit_linear
from ray_jobs.llemr.answer import Answerer
from ray_jobs.llemr.corpus import dialect_events
from ray_jobs.llemr.data import BLANK, EventStore, Questions, printed, questions_of
from ray_jobs.llemr.dialect import scalars, word_rarity
from ray_jobs.llemr.model import Llemr, Projector, splice
from ray_jobs.llemr.muon import orthogonal
from ray_jobs.llemr.packing import FLEX_BLOCK, pack
from ray_jobs.llemr.plan import Plan
from ray_jobs.llemr.progress import Curves, Pace
from ray_jobs.llemr.reading import Reader
from ray_jobs.llemr.recipe import BaseModelRecipe, Recipe
from ray_jobs.llemr.tokenizer import DIGITS, prompt_parts, train_tokenizer
from ray_jobs.llemr.tokens import EventFeatures, Features
from ray_jobs.llemr.worker import out_of_memory

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
    columns = [
        "hospital",
        "visit_id",
        "event_at",
        "available_at",
        "kind",
        "concept",
        "value",
        "unit",
        "text",
        "row_id",
    ]
    return pl.DataFrame(rows, schema=columns, orient="row")


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
    return pl.DataFrame(
        rows, schema=["hospital", "visit_id", "cutoff_at", "question", "answer"], orient="row"
    )


@pytest.fixture(scope="module")
def store() -> EventStore:
    return EventStore.of(events(), {"glucose": (0, 70, 140), "heart_rate": (0, 60, 100)})


@pytest.fixture(scope="module")
def weights(store: EventStore) -> checkpoint.Weights:
    torch.manual_seed(0)
    tokenizer = train_tokenizer([*WORDS, *asked()["question"], *asked()["answer"], *store.texts], 200)
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


@pytest.mark.parametrize(
    "text", ["7.4 mmol/l", "-3.5 h", "8.2 10*3/ul", "not in the record", "142 mg/dl", "7"]
)
def test_numbers_are_digits_and_come_back(weights, text):
    ids = weights.tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens = weights.tokenizer.convert_ids_to_tokens(ids)
    number = text.split()[0]
    if number[-1].isdigit():
        assert tokens[: len(number)] == list(number)
    if "-" not in text and "142" not in text:
        assert (
            weights.tokenizer.decode([*ids, weights.tokenizer.eos_token_id], skip_special_tokens=True) == text
        )


def test_hours_and_digits_of_a_record(store):
    first = slice(store.start[0], store.start[1])
    assert store.hours[first].tolist() == list(range(12))
    assert [store.texts[t] for t in store.text[first]][:2] == [
        "admission: emergency, male",
        "glucose in mg/dl",
    ]
    assert store.value[first][1] == 101 and store.digits[first][1] == 0


def test_only_what_was_known_is_visible(store):
    cutoff = int((START + timedelta(hours=5)).timestamp() * 1e6)
    cutoff = pl.Series([START + timedelta(hours=5)]).cast(pl.Datetime("us")).to_physical()[0]
    seen = store.visible(0, cutoff, 96)
    assert seen.tolist() == [0, 1, 2, 3, 4]  # the event of hour 5 is known at half past


def test_thinning_keeps_the_newest_of_each_text_then_labs_before_vitals(store):
    end = pl.Series([START + timedelta(days=1)]).cast(pl.Datetime("us")).to_physical()[0]
    kept = store.visible(0, end, 5)
    assert kept.tolist() == [
        0,
        7,
        9,
        10,
        11,
    ]  # admission, newest heart rate and glucose, then the next newest glucoses


def test_the_place_in_the_reference_range(store):
    glucose = store.text == store.texts.index("glucose in mg/dl")
    assert glucose.any()
    assert store.reference[glucose] == pytest.approx((store.value[glucose] - 105) / 35)  # 70 is -1, 140 is 1
    admission = store.text == store.texts.index("admission: emergency, male")
    assert (store.reference[admission] == 0).all()  # an age has no reference range
    narrow = EventStore.of(events(), {"glucose": (0, 103, 103)})
    assert (narrow.reference[glucose] == 3 * np.sign(narrow.value[glucose] - 103)).all()


def test_the_value_before_is_the_last_that_was_known():
    late = events().with_columns(
        available_at=pl.when(pl.col("row_id") == "m:0-3")
        .then(pl.col("available_at") + timedelta(days=9))
        .otherwise(pl.col("available_at"))
    )
    store = EventStore.of(late, {})
    glucose = store.text == store.texts.index("glucose in mg/dl")
    first = glucose & (np.arange(len(glucose)) < store.start[1])
    one, second, third, *_ = store.value[first]  # the second came days after the third, which passes over it
    expected = [np.nan, one, one, *store.value[first][2:-1]]
    assert np.array_equal(store.previous[first], expected, equal_nan=True)
    assert second not in store.previous[first] and third in store.previous[first]


@settings(max_examples=60, deadline=None)
@given(
    delays=st.lists(st.integers(0, 900), min_size=36, max_size=36),
    cutoff=st.integers(0, 1200),
    number=st.floats(1, 400),
)
def test_what_is_known_later_changes_no_token(delays, cutoff, number):
    """Rows that are available only after the cut-off are changed, or not there: each visible token keeps its bytes."""
    frame = events().with_columns(
        available_at=pl.col("event_at") + pl.Series([timedelta(minutes=d) for d in delays])
    )
    limit = START + timedelta(minutes=cutoff)
    later = pl.col("available_at") > limit
    moved = pl.when(later).then(pl.col("event_at") + timedelta(minutes=7)).otherwise(pl.col("event_at"))
    changed = frame.with_columns(value=pl.when(later).then(number).otherwise(pl.col("value")), event_at=moved)
    known = {"glucose": (0, 70, 140), "heart_rate": (0, 60, 100)}
    whole = EventStore.of(frame, known)
    features = Features.fit(whole, np.arange(len(whole.visits)), 8)
    frames = [f for f in (frame, changed, frame.filter(~later)) if f.height]
    said = [_tokens(EventStore.of(f, known), features, limit) for f in frames]
    assert all(tokens == said[0] for tokens in said)


def _tokens(store: EventStore, features: Features, limit: datetime) -> dict[str, bytes]:
    """What the projector and the dialect are told of each event that is visible at `limit`, by row."""
    visible = store.visible(0, int((limit - datetime(1970, 1, 1)) / timedelta(microseconds=1)), 1000)
    by_text = np.array([[len(t)] * 8 for t in store.texts], np.float32)
    seen = EventFeatures(features, store, by_text)[visible].numpy()
    spoken = scalars(features, store)[visible]
    return {store.row_id[e]: seen[i].tobytes() + spoken[i].tobytes() for i, e in enumerate(visible)}


def test_printed_characters_by_place():
    codes = printed(np.array([7.4, np.nan, -3.25, 142]), np.array([1, 0, 2, 0]), 5)
    said = ["".join(DIGITS[c] if c < BLANK else "_" for c in row) for row in codes]
    assert said == ["7.4__", "_____", "-3.25", "142__"]


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


def test_each_record_goes_into_the_fullest_row_that_has_room_for_it():
    units = [(np.arange(n), []) for n in (2, 5, 9, 3, 5, 2)]  # first fit would need a third row of 13
    units[0] = (units[0][0], [(np.empty(0, int), np.empty(0, int))])
    batch = pack([], units, row_length=13)
    assert batch.ids.shape == (2, 13) and (batch.record >= 0).all()


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


def test_greedy_answers_equal_step_by_step_decoding(weights, store, vectors):
    answerer = Answerer(weights)
    said = answerer.answer(asked(), store, vectors)
    features = EventFeatures(weights.features, store, vectors)
    parts = prompt_parts(weights.tokenizer)
    q = questions_of(asked(), store, weights.tokenizer, parts, 96)
    model = weights.model().eval()
    for i in (0, 7, 17):
        ids: list[int] = []
        while len(ids) < 24:
            row = pack(parts[0], [(q.records[q.record[i]], [(q.prompt[i], np.array([*ids, 0], np.int32))])])
            with torch.inference_mode():
                token = int(model(row, features[row.events])[0][-1].argmax())
            if token == weights.tokenizer.eos_token_id:
                break
            ids.append(token)
        assert said[i] == weights.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_withheld_answers_do_not_depend_on_the_record_and_swaps_read_the_other(weights, store, vectors):
    answerer, frame = Answerer(weights), asked()
    withheld = answerer.answer(frame, store, vectors, control="withheld")
    assert all(withheld[i] == withheld[i % 3] for i in range(len(withheld)))
    same = [frame.row(0)[:3]] * frame.height
    swapped = answerer.answer(frame, store, vectors, swap=same)
    assert all(swapped[i] == swapped[i % 3] for i in range(len(swapped)))
    assert swapped[:3] == answerer.answer(frame.head(3), store, vectors)


def test_digits_of_a_number_can_be_read_from_the_event_token(store, vectors):
    """A linear map reads every printed digit back from what the projector sees."""
    rng = np.random.default_rng(1)
    n = 1500
    many = store.__class__(**vars(store) | {
        "value": np.round(rng.uniform(1, 400, n), 1),
        "digits": np.ones(n, np.int8),
        "reference": np.zeros(n, np.float32),
        "previous": np.full(n, np.nan),
        "hours": rng.uniform(0, 99, n),
        "text": rng.integers(len(store.texts), size=n).astype(np.int32),
        "kind": np.zeros(n, np.int16),
        "unit": np.zeros(n, np.int16),
    })  # fmt: skip
    seen = EventFeatures(Features.fit(store, np.arange(3), 8), many, vectors)[np.arange(n)]
    digits = torch.from_numpy(printed(many.value, many.digits, 3).astype(np.int64))
    wanted = torch.nn.functional.one_hot(digits, BLANK + 1).flatten(1).float()
    linear = torch.nn.Linear(seen.shape[1], wanted.shape[1])
    fit_linear(linear, seen[:1000], wanted[:1000])
    read = linear(seen[1000:]).view(500, 3, BLANK + 1).argmax(-1)
    assert (read == digits[1000:]).float().mean() > 0.99


def test_hours_keep_their_minutes_in_float32(weights, store, vectors):
    late = store.__class__(**vars(store) | {"hours": store.hours + 8000.25})
    a = EventFeatures(weights.features, late, vectors)[np.array([1])]
    later = store.__class__(**vars(store) | {"hours": store.hours + 8000.30})
    b = EventFeatures(weights.features, later, vectors)[np.array([1])]
    assert a.dtype == torch.float32 and (a - b).abs().max() > 0.1


def test_alignment_speaks_the_dialect(weights, store, vectors):
    torch.manual_seed(0)
    projector = Projector(weights.features.width, 32)
    features, said = EventFeatures(weights.features, store, vectors), dialect_events(weights, store)
    embedding = weights.lm.get_input_embeddings().weight
    left = align(projector, features, said, embedding, np.arange(len(store.text)), 20, seed=1)
    assert left < 0.01


def test_muon_makes_singular_values_alike():
    for shape in ((2, 16, 48), (2, 48, 16)):
        values = torch.linalg.svdvals(
            orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        )
        assert values.min() > 0.3 and values.max() < 1.3


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


def test_saved_weights_give_identical_logits_and_changes_are_noticed(weights, store, vectors, tmp_path):
    checkpoint.save(tmp_path / "w", weights, {"name": "small"}, {"loss": 1.0}, {"weights/base_model": "abc"})
    checkpoint.save(tmp_path / "w" / "aligned", weights, {"name": "small"}, {}, {}, lm_at="..")
    checkpoint.seal(tmp_path / "w")
    checkpoint.verify(tmp_path / "w")
    features = EventFeatures(weights.features, store, vectors)
    batch = pack([1], [(np.array([0, 1, 2]), [(np.array([11, 5]), np.array([12, 2]))])])
    expected, _ = Llemr(weights.lm, weights.projector)(batch, features[batch.events])
    for folder in (tmp_path / "w", tmp_path / "w" / "aligned"):
        again, _ = checkpoint.load_weights(folder).model()(batch, features[batch.events])
        assert torch.equal(again, expected)
    (tmp_path / "w" / "metrics.json").write_text("{}")
    with pytest.raises(JobError, match=r"metrics\.json was changed"):
        checkpoint.verify(tmp_path / "w")


RECIPE = {
    "name": "small", "hardware": "any", "memory_per_worker_gb": 4,
    "stage1": {"sets": ["schema_alignment"], "steps": 3, "rows": 4, "lr": 0.001},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"presicion": "bf16"}, "recipe small: presicion: .*; did you mean precision?"),
        ({"stage1": RECIPE["stage1"] | {"steps": 0}}, "recipe small: stage1.steps: .*greater than 0"),
        (
            {"stage1": RECIPE["stage1"] | {"sets": ["notes"]}},
            "recipe small: stage1.sets.0: .*schema_alignment",
        ),
        ({"workers": 3}, "recipe small: stage1.rows is 4, which 3 workers cannot share evenly"),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(change, message):
    with pytest.raises(JobError, match=message):
        Recipe.of(RECIPE | change)


def test_a_recipe_that_does_not_fit_is_refused_before_it_starts(weights):
    recipe = Recipe.of(RECIPE | {"memory_per_worker_gb": 0.5})
    with pytest.raises(
        JobError, match=r"recipe small: stage1 needs about .* GB a worker .* lower stage1.micro_batch_rows"
    ):
        memory.must_fit(recipe, "stage1", weights.lm.config, 1_000_000, 100_000)


def test_memory_that_cannot_be_had_has_a_name():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    assert out_of_memory(raised.value) and out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("shapes differ"))


def test_what_a_training_used_is_told():
    curves = Curves({"stage1": {1: 0.5, 2: 0.25}}, {"stage1": {1: 100.0, 2: 120.0}})
    pace = Pace(0, 2, speed.operations(1000, 100))
    pace.add(4, 100)
    assert pace.figures().keys() == {
        "step_s",
        "step_cpu_s",
        "tokens_a_second",
        "memory_gb",
    }  # no peak of a CPU
    pace.peak = 4200.0
    spent = 100 / pace.figures()["tokens_a_second"]
    assert pace.figures()["mfu"] == pytest.approx(100 / spent, rel=1e-3) and "of the peak" in pace.line(
        1, 0.5
    )
    assert curves.points() == {"stage1": [(1, 0.5), (2, 0.25)]}


def test_curves_are_written_for_tensorboard(tmp_path):
    Curves({"blind": {1: 0.5}}, {"blind": {1: 100.0}}).tensorboard(tmp_path)
    (file,) = (tmp_path / "blind").glob("events.out.tfevents.*")
    assert b"tokens_a_second" in file.read_bytes()
