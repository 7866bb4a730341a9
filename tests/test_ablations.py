"""The ablations on a small house: every row is trained or taken over, asked the same questions, and the night is left alone."""

import logging

import numpy as np
import polars as pl
import pytest

from orchestration import catalog
from ray_jobs import ablations
from ray_jobs.llemr.answer import Answerer
from ray_jobs.llemr.checkpoint import load_weights
from ray_jobs.llemr.data import EventStore, dictionary, read_frames
from ray_jobs.llemr.recipe import Recipe
from ray_jobs.llemr.records_as_text import ask_in_text
from ray_jobs.llemr.tokens import V1_SCALARS, Features, event_features
from tests import untaught

STAGE = {"steps": 2, "rows": 4, "lr": 0.001, "warmup": 1}
RECIPE = Recipe.of({
    "name": "small", "hardware": "any", "memory_per_worker_gb": 2, "cpus_per_worker": 1,
    "stage1": STAGE | {"sets": ["schema_alignment"]},
    "stage2": STAGE | {"sets": ["schema_alignment", "clinical_reasoning"]},
})  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("house")
    events = untaught.house(folder / "root", folder, admissions=60)
    for number, key in enumerate(("base_model", "stage1", "stage2")):
        made = untaught.weights(folder / key, events, number)
        untaught.publish(folder / "root", f"weights/{key}", made)
    return folder / "root"


@pytest.fixture(scope="module")
def store(root) -> EventStore:
    files = catalog.load(str(root)).files("harmonised/events")
    return EventStore.read(files, dictionary(str(untaught.CONCEPTS)))


def test_the_token_of_v1_has_the_number_in_its_text_and_three_bare_scalars(store):
    features = Features.fit(store, np.arange(len(store.visits)), 5, "v1")
    texts = features.texts_of(store)
    event = int(np.flatnonzero(~np.isnan(store.value))[3])
    said = f"{store.texts[store.text[event]]}: {store.value[event]:.{store.digits[event]}f}"
    vectors = np.random.default_rng(0).normal(size=(len(texts), 5)).astype(np.float32)
    token = event_features(features, store, vectors)[np.array([event])][0]
    assert len(token) == features.width == 5 + len(V1_SCALARS) and len(set(texts)) == len(texts)
    assert np.allclose(token[:5], vectors[texts.index(said)])
    assert token[5:].tolist() == pytest.approx([store.hours[event], store.value[event], 0.0], rel=1e-6)


def test_a_record_in_words_is_its_newest_events_within_the_budget(root, store):
    found = catalog.load(str(root))
    tokenizer = load_weights(found.folder("weights/base_model")).tokenizer
    frame = read_frames(found.files("instructions/schema_alignment")).head(40)
    told = ask_in_text(frame, store, tokenizer, budget=60)
    for row, before in zip(told.iter_rows(named=True), frame["question"], strict=True):
        words = row["question"].removesuffix(f" ; {before}")
        events = [w for w in words.split(" ; ") if w]
        assert len(tokenizer(words.replace(" ; ", " "), add_special_tokens=False)["input_ids"]) <= 60
        hours = [float(e.split(" h ")[0]) for e in events]
        assert hours == sorted(hours) and events


def test_shuffled_records_are_answered_and_an_unknown_control_is_named(root, store):
    found = catalog.load(str(root))
    answerer = Answerer(load_weights(found.folder("weights/stage1")))
    frame = read_frames(found.files("instructions/schema_alignment")).head(4)
    vectors = np.zeros((len(store.texts), untaught.DIMENSIONS), np.float32)
    assert len(answerer.answer(frame, store, vectors, "shuffled")) == 4
    with pytest.raises(ValueError, match="it is one of"):
        answerer.answer(frame, store, vectors, "mirrored")


@pytest.mark.night  # four trainings on Ray
def test_every_row_of_the_table_is_there_and_the_night_stays(root, tmp_path):
    before = catalog.load(str(root)).accepted
    found = ablations.run(str(root), RECIPE, 12, tmp_path / "root", logging.getLogger("ablations"))
    names = [line.split("|")[1].strip() for line in found.splitlines()[2:]]
    assert names == [
        "both stages",
        *(f"both stages, events {control}" for control in ("withheld", "swapped", "shuffled")),
        "stage 1 only",
        "stage 2 only",
        "both stages, token of Llemr v1",
        "stage 2 on the record as text",
    ]
    assert catalog.load(str(root)).accepted == before


def test_the_table_has_intervals_and_paired_differences():
    asked = pl.DataFrame({
        "hospital": "north", "patient_id": [str(i % 4) for i in range(12)], "set": "schema_alignment",
        "family": ["extreme", "value_at_time", "admission"] * 4,
    })  # fmt: skip
    every = np.ones(12, bool)
    found = ablations.table({"both stages": (np.ones(12), every), "other": (np.zeros(12), every)}, asked)
    lines = found.splitlines()
    assert lines[2].startswith("| both stages | 100.0 (100.0 to 100.0) |")
    assert lines[3].endswith("| -100.0 (-100.0 to -100.0) |")
