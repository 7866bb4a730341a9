"""Events as tokens, on cases small enough to compute by hand: digits, hours, what is visible, what is thinned, what is spoken."""

from datetime import datetime, timedelta

import fsspec
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.llemr import data
from ray_jobs.llemr.align import align, fit_linear
from ray_jobs.llemr.corpus import dialect_events
from ray_jobs.llemr.data import BLANK, EventStore, printed
from ray_jobs.llemr.dialect import scalars
from ray_jobs.llemr.model import Projector
from ray_jobs.llemr.tokenizer import DIGITS
from ray_jobs.llemr.tokens import EventFeatures, Features
from tests.llemr.conftest import START, events


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


def test_vectors_of_a_local_folder_are_mapped_and_are_those_of_a_remote_one(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16)
    pl.DataFrame({"row": [0, 1, 2], "text": ["a", "b", "c"]}).write_parquet(tmp_path / "texts.parquet")
    np.save(tmp_path / "vectors.npy", vectors)
    fsspec.filesystem("memory").put(f"{tmp_path}/", f"{tmp_path}/", recursive=True)
    for folder in (str(tmp_path), f"file://{tmp_path}", f"memory://{tmp_path}"):
        found = data.text_vectors(folder, ["c", "a"])
        assert found.dtype == np.float32 and np.array_equal(found, vectors[[2, 0]].astype(np.float32))
        assert isinstance(data._embedded(folder)[1], np.memmap) != folder.startswith("memory")
    fsspec.filesystem("memory").rm(str(tmp_path), recursive=True)
