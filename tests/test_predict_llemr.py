"""Llemr as a predictor: nothing after the prediction time above all, then the read-out, its calibration and the jobs."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration import catalog, dbt
from orchestration.tasks import definition
from ray_jobs import predict_llemr, task_questions
from ray_jobs.config import JobConfig
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.data import EVENT_COLUMNS, EventStore, dictionary
from ray_jobs.llemr.tokens import EventFeatures
from ray_jobs.prediction import calibration, predictions
from ray_jobs.runtime import Job
from tests import untaught
from tests.test_prediction import enter
from tests.timeline import timeline

KNOWN = dictionary(str(untaught.CONCEPTS))
ASKED = ("what is the mg/dl", "is the last glucose high?")


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    return timeline(10)[0].select(EVENT_COLUMNS)


@pytest.fixture(scope="module")
def folder(events, tmp_path_factory) -> Path:
    return untaught.weights(tmp_path_factory.mktemp("weights") / "made", events, 1)


@pytest.fixture(scope="module")
def model(folder):
    torch.set_num_threads(1)
    return checkpoint.load(folder)


def vectors(texts: list[str]) -> np.ndarray:
    """A vector of each text, the same in every store."""
    return np.stack(
        [np.random.default_rng([*text.encode()]).normal(size=untaught.DIMENSIONS) for text in texts]
    )


def asked_at(events: pl.DataFrame, hours: float) -> pl.DataFrame:
    """Two questions about every visit, so many hours after its admission."""
    admitted = events.filter(pl.col("kind") == "admission").select(
        "hospital", "visit_id", cutoff_at="event_at"
    )
    at = admitted.with_columns(pl.col("cutoff_at") + timedelta(hours=hours)).sort("hospital", "visit_id")
    return pl.concat([at.with_columns(question=pl.lit(q)) for q in ASKED])


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), hours=st.sampled_from([-1.0, 0.0, 3.0, 20.0, 60.0]))
def test_nothing_after_the_prediction_changes_a_prompt_or_a_probability(events, model, seed, hours):
    """Times, values, units, kinds, texts and existence of all later rows change; view, prompt and odds keep their bytes."""
    questions = asked_at(events, hours)
    cut = events.join(
        questions.unique(["hospital", "visit_id"]), on=["hospital", "visit_id"], maintain_order="left"
    )
    later = (cut["available_at"] > cut["cutoff_at"]).to_numpy()
    rng = np.random.default_rng(seed)
    other = rng.permutation(len(cut))
    columns = ["kind", "concept", "value", "unit", "text"]
    swapped = cut[other].select(pl.col(columns).name.suffix("_new"))
    moved = pl.Series([timedelta(hours=float(h)) for h in rng.uniform(-30, 30, len(cut))])
    changed = cut.hstack(swapped).with_columns(pl.Series("late", later), pl.Series("moved", moved))
    changed = changed.with_columns(
        *(pl.when("late").then(pl.col(f"{c}_new")).otherwise(pl.col(c)).alias(c) for c in columns),
        event_at=pl.when("late").then(pl.col("event_at") + pl.col("moved")).otherwise("event_at"),
    ).filter(~pl.col("late") | pl.Series(rng.random(len(cut)) < 0.7))
    first, second = (read(model, frame.select(EVENT_COLUMNS), questions) for frame in (events, changed))
    assert first == second


def read(model, events: pl.DataFrame, questions: pl.DataFrame) -> tuple:
    store = EventStore.of(events, KNOWN)
    asked = model.asked(questions, store)
    odds = model.odds(questions, store, vectors(store.texts))
    views = [[store.row_id[e] for e in record] for record in asked.records]
    return views, [prompt.tobytes() for prompt in asked.prompt], odds.tobytes()


def test_odds_are_the_two_logits_at_the_first_position_of_the_answer(events, model):
    questions, store = asked_at(events, 12.0), EventStore.of(events, KNOWN)
    by_text = vectors(store.texts)
    odds = model.odds(questions, store, by_text, batch=3)
    asked = model.asked(questions, store)
    features = EventFeatures(model.weights.features, store, by_text)
    yes, no = (model.weights.tokenizer.get_vocab()[word] for word in ("yes", "no"))
    embed = model.model.lm.get_input_embeddings()
    for i in range(0, len(asked), 3):
        (prefix,) = model._prefixes([asked.records[asked.record[i]]], features)
        with torch.inference_mode():
            row = torch.cat([prefix, embed(torch.from_numpy(asked.prompt[i]).long())])
            last = model.model.lm(inputs_embeds=row[None]).logits[0, -1]
        assert odds[i] == pytest.approx(float(last[yes] - last[no]), abs=1e-4)
    assert len(set(odds.round(6))) > len(odds) / 2


def test_a_visit_of_which_nothing_is_known_is_asked_about_without_events(events, model):
    store = EventStore.of(events, KNOWN)
    nobody = asked_at(events, 12.0).with_columns(visit_id=pl.lit("none"))
    early = asked_at(events, -1000.0)
    by_text = vectors(store.texts)
    assert model.odds(nobody, store, by_text) == pytest.approx(model.odds(early, store, by_text), abs=1e-5)


def labels(rng, n: int, slope: float, intercept: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    odds = rng.normal(size=n) * 2
    truth = rng.random(n) < 1 / (1 + np.exp(-(slope * odds + intercept)))
    return odds, truth, [f"p{i // 2}" for i in range(n)]


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"),
    [(1.0, 0.0, "none"), (0.2, 0.0, "temperature"), (1.0, -2.0, "prior"), (0.4, -2.0, "platt")],
)
def test_calibration_finds_what_is_wrong_and_keeps_the_order(slope, intercept, kind):
    found = []
    for seed in range(3):
        odds, truth, patients = labels(np.random.default_rng(seed), 3000, slope, intercept)
        made = calibration.choose(odds, truth, patients)
        assert (made.slope, made.intercept) == pytest.approx((slope, intercept), abs=0.25)
        chances = made.probabilities(odds)
        assert (np.diff(chances[np.argsort(odds)]) >= 0).all() and abs(chances.mean() - truth.mean()) < 0.03
        found.append(made.kind)
    assert kind in found


def test_calibration_of_few_is_the_prior_and_of_a_separable_set_is_not_certain():
    odds, people = np.linspace(-3, 3, 20), [f"p{i}" for i in range(20)]
    never = calibration.choose(odds, np.zeros(20, bool), people)
    assert never.kind == "prior" and never.probabilities(odds).mean() == pytest.approx(1 / 22, abs=1e-3)
    assert calibration.choose(odds, odds > 2.2, people).kind == "prior"
    assert calibration.choose(np.zeros(0), np.zeros(0, bool), []).kind == "none"
    chances = calibration.fit("platt", odds, odds > 0).probabilities(odds)
    assert chances.min() > 0.005 and chances.max() < 0.995
    backwards = calibration.fit(
        "platt", odds, odds < 0
    )  # a model that is worse than chance is not turned round
    assert 0 < backwards.slope < 0.01


def test_training_rows_are_capped_by_class_and_the_same_every_night():
    rows = [
        (
            "north",
            f"p{i}",
            "v",
            "train",
            datetime(2150, 1, 1),
            "q?",
            *(["yes" if i % 5 == 0 else "no"] * 2),
            "t",
        )
        for i in range(500)
    ]
    train = pl.DataFrame(rows, schema=task_questions.COLUMNS, orient="row")
    kept = task_questions.chosen(train, 120)
    assert kept["answer"].value_counts().sort("answer").rows() == [("no", 60), ("yes", 60)]
    assert kept.rows() == task_questions.chosen(train.reverse(), 120).rows()
    rare = task_questions.chosen(
        train.filter((pl.col("answer") == "no") | (pl.col("patient_id") < "p12")), 120
    )
    assert rare.height == 120 and 0 < (rare["answer"] == "yes").sum() < 60
    assert task_questions.chosen(train.filter(pl.col("answer") == "no"), 120).is_empty()


def test_every_shipped_task_has_a_question_and_each_group_its_own():
    tasks = definition.read(dbt.PROJECT)
    numbers = {"remaining_length_of_stay"}  # are not asked about
    assert {name for name, task in tasks.items() if task.question is None} == numbers
    groups = tasks["diagnosis_groups"]
    asked = [groups.asked(group) for group in groups.groups]
    assert len(set(asked)) == len(asked) and not any("{" in question for question in asked)
    unasked = groups.model_copy(update={"question": None})
    assert unasked.asked("CIR019").startswith("heart failure: whether a diagnosis of the visit")


@pytest.fixture
def root(tmp_path, events, folder) -> Path:
    """A root with events, embeddings and three tasks: by chance, never, and a number."""
    root, (_, splits) = tmp_path / "root", timeline(10)
    people = splits.with_columns(split=pl.Series(["train", "held_out", "tuning", "held_out", "train"] * 2))
    enter(root, "harmonised/events", timeline(10)[0])
    enter(root, "splits", people)
    of = asked_at(events, 12.0).filter(pl.col("question") == ASKED[0]).rename({"cutoff_at": "prediction_at"})
    of = of.join(
        timeline(10)[0].select("hospital", "visit_id", "patient_id").unique(),
        on=["hospital", "visit_id"],
        maintain_order="left",
    )
    chance = np.arange(of.height) % 2  # both classes in every split
    for task, label in {"anemia": chance, "icu_transfer": 0 * chance, "hours": chance + 0.5}.items():
        told = of.with_columns(pl.Series("label", label), pl.lit(task).alias("task"))
        enter(root, f"labels/{task}", told.drop("question"))
    texts = sorted(events["text"].unique())
    embedded = tmp_path / "embedded"
    embedded.mkdir()
    pl.DataFrame({"row": range(len(texts)), "text": texts}).write_parquet(embedded / "texts.parquet")
    np.save(embedded / "vectors.npy", vectors(texts).astype(np.float16))
    untaught.publish(root, untaught.EMBEDDINGS, embedded)
    for key in ("weights/base_model", "weights/champion", "weights/predictor"):
        untaught.publish(root, key, folder)
    return root


def start(root: Path, job: str, output: str, inputs: list[str], **params) -> Job:
    accepted = catalog.load(str(root))
    versions = {key: accepted.version(key) for key in inputs}
    config = JobConfig(job, "run", str(root), catalog.fingerprint(job=job), versions, [output], params)
    scratch = root.parent / job
    scratch.mkdir()
    return Job(config, scratch, logging.getLogger("test"), None)


def ask(root: Path) -> None:
    tasks = [f"labels/{task}" for task in ("anemia", "hours", "icu_transfer")]
    task_questions.run(
        start(root, "task_questions", "instructions/tasks", ["splits", *tasks], train_per_task=300)
    )


def test_the_jobs_tell_every_held_out_label_once_and_train_on_no_task_of_one_class(root):
    ask(root)
    asked = pl.read_parquet(catalog.load(str(root)).files("instructions/tasks"))
    assert set(asked.filter(pl.col("split") == "train")["task"]) == {"anemia"} and "hours" not in set(
        asked["task"]
    )
    inputs = [
        "harmonised/events",
        "splits",
        "instructions/tasks",
        untaught.EMBEDDINGS,
        "weights/champion",
        "weights/predictor",
    ]
    predict_llemr.run(start(root, "predict_llemr", "evaluation/llemr", inputs))
    made = Path(catalog.load(str(root)).folder("evaluation/llemr"))
    told = predictions.read([made])
    assert told.group_by("contestant", "task").len().sort("contestant", "task").rows() == [
        ("llemr_fine_tuned", "anemia", 4),
        ("llemr_zero_shot", "anemia", 4),
        ("llemr_zero_shot", "icu_transfer", 4),
    ]
    held = asked.filter(pl.col("split") == "held_out", pl.col("task") == "anemia")
    assert (
        told.filter(pl.col("task") == "anemia")["boolean_value"].sum() == 2 * (held["answer"] == "yes").sum()
    )
    figures = json.loads((made / "metrics.json").read_text())
    assert figures["icu_transfer"]["llemr_zero_shot"]["auroc"]["value"] is None
    assert figures["anemia"]["llemr_fine_tuned"]["calibration"]["kind"] == "prior"
    assert "| anemia | 4 (" in (made / "table.md").read_text()


def test_a_task_that_nobody_held_out_has_is_named_and_the_others_are_told(root):
    ask(root)
    file = Path(catalog.load(str(root)).files("instructions/tasks")[0])
    gone = (pl.col("task") == "icu_transfer") & (pl.col("split") == "held_out")
    pl.read_parquet(file).filter(~gone).write_parquet(file)
    inputs = ["harmonised/events", "splits", "instructions/tasks", untaught.EMBEDDINGS, "weights/champion"]
    predict_llemr.run(start(root, "predict_llemr", "evaluation/llemr", inputs))
    made = Path(catalog.load(str(root)).folder("evaluation/llemr"))
    assert set(predictions.read([made])["task"]) == {"anemia"}
    figures = json.loads((made / "metrics.json").read_text())["icu_transfer"]["llemr_zero_shot"]
    assert figures["not_foreseen"] == "no held-out label"
    assert "| icu_transfer | 0 (0) | llemr_zero_shot | no held-out label |" in (made / "table.md").read_text()
