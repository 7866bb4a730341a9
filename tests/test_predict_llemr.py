"""Llemr as a predictor: nothing after the prediction time above all, then the read-out, its calibration and the jobs."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
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
from ray_jobs import crossvalidate, predict_llemr, task_questions, train
from ray_jobs.config import JobConfig, JobError
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.data import EVENT_COLUMNS, EventStore, dictionary
from ray_jobs.llemr.recipe import Recipe
from ray_jobs.llemr.tokens import EventFeatures
from ray_jobs.prediction import calibration, fine_tuned, language, predictions
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
        ("north", f"p{i}", "v", "train", datetime(2150, 1, 1), "q?", "yes" if i % 5 == 0 else "no", "t")
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


def teach(root: Path, hospitals: list[str] | None) -> None:
    """Let the champion's record say from which hospitals it learned."""
    file = Path(catalog.load(str(root)).folder("weights/champion")) / "versions.json"
    versions = json.loads(file.read_text())
    versions.pop("hospitals", None)
    file.write_text(json.dumps(versions | ({"hospitals": hospitals} if hospitals else {})))


def test_a_champion_is_not_asked_in_folds_about_whom_it_was_trained_on(root):
    inputs = ["harmonised/events", "splits", "labels/anemia", untaught.EMBEDDINGS, "weights/champion"]
    models = ["Llemr, zero-shot", "Llemr, fine-tuned"]
    job = start(root, "crossvalidate", "evaluation/folds", inputs, task="anemia", models=models, folds=3)
    splits, labels = (pl.read_parquet(job.files(key)) for key in ("splits", "labels/anemia"))
    rows = crossvalidate.prediction_rows(labels, splits, 3)
    hospital, why = rows["hospital"][0], "weights/champion does not say from which hospitals it learned"
    teach(root, None)
    assert language.why_not_asked(job, rows).startswith(why)
    teach(root, [hospital])
    why = language.why_not_asked(job, rows)
    assert why.startswith(f"weights/champion learned from {hospital},")
    crossvalidate.run(job)  # nobody is left to be asked
    assert "evaluation/folds" not in catalog.load(str(root)).accepted
    left_out = dict.fromkeys(models, why)
    content = {"task": "anemia", "labels": 4, "positives": 2, "models": {}, "left_out": left_out}
    assert crossvalidate.table(content).endswith(f"Llemr, fine-tuned is left out: {why}.")
    twin = rows.with_columns(hospital=pl.lit("its twin"))
    assert language.why_not_asked(job, twin).startswith("weights/champion learned from its twin")
    ask(root)
    further = start(root, "train", "weights/predictor", ["instructions/tasks", "weights/champion"])
    stage = {"sets": ["tasks"], "steps": 1, "rows": 2, "lr": 0.001, "warmup": 1, "withheld": 0.0}
    recipe = Recipe.of({"name": "s", "hardware": "any", "memory_per_worker_gb": 2, "predictor": stage})
    teach(root, ["elsewhere"])
    assert train.taught_by(further, recipe, "predictor") == {"elsewhere", *splits["hospital"]}
    teach(root, [hospital])
    stranger = twin.with_columns(person_group=pl.lit("other"))
    assert language.why_not_asked(job, stranger) is None


def test_the_champion_is_asked_in_folds_with_the_same_odds(root):
    teach(root, ["elsewhere"])
    inputs = ["harmonised/events", "splits", "labels/anemia", untaught.EMBEDDINGS, "weights/champion"]
    models = ["Llemr, zero-shot"]
    asked = [*models, "plain counts, LightGBM"]  # of ten patients nothing is counted often enough
    job = start(root, "crossvalidate", "evaluation/folds", inputs, task="anemia", models=asked, folds=3)
    crossvalidate.run(job)
    made = Path(catalog.load(str(root)).folder("evaluation/folds"))
    labels = pl.read_parquet(catalog.load(str(root)).files("labels/anemia"))
    told = pl.read_parquet(made / "predictions.parquet")
    assert told.height == labels.height and set(told["contestant"]) == set(models)
    assert told["predicted_boolean_probability"].is_between(0, 1).all()
    why = "nothing is seen in enough rows of the train split"
    assert json.loads((made / "metrics.json").read_text())["left_out"] == {asked[1]: why}
    assert f"plain counts, LightGBM is left out: {why}." in (made / "table.md").read_text()


STAGE = {"sets": ["tasks"], "steps": 4, "rows": 2, "lr": 0.001, "warmup": 1, "withheld": 0.0}
RECIPE = {
    "name": "small",
    "hardware": "any",
    "memory_per_worker_gb": 2,
    "cpus_per_worker": 1,
    "predictor": STAGE,
}


@pytest.mark.night  # a training on Ray
def test_the_champion_is_fine_tuned_in_a_fold_on_its_train_rows(root):
    """One fold is trained by Ray and DeepSpeed; another one, which an earlier start had done, is not done again."""
    teach(root, ["elsewhere"])
    inputs = ["harmonised/events", "splits", "labels/anemia", untaught.EMBEDDINGS, "weights/champion"]
    params = {
        "task": "anemia",
        "recipe": RECIPE,
        "fine_tuning": {"steps": 2, "lr": 0.01},
        "train_per_task": 4,
    }
    job = start(root, "crossvalidate", "evaluation/folds", inputs, **params)
    assert fine_tuned.recipe_of(job).predictor.steps == 2
    labels = pl.read_parquet(catalog.load(str(root)).files("labels/anemia"))
    rows = labels.sort("prediction_at").with_columns(person="patient_id")
    split = np.array(["held_out", "tuning", *["train"] * (rows.height - 2)])
    asked = language.questions_of(job, rows)
    told = asked.with_columns(split=pl.Series(split))
    taught = fine_tuned.questions(told, 4)
    assert taught.height == 4 and set(taught["split"]) == {"train"} and set(taught["answer"]) == {"yes", "no"}
    kept = fine_tuned.root_of(job)
    kept.mkdir(parents=True)
    np.save(kept / "fold-1.npy", np.ones(rows.height))
    before = catalog.load(str(root)).accepted
    odds = language.tuned(job, rows, {0: split, 1: split})
    assert (np.isnan(odds[0]) == (split == "train")).all() and (odds[1] == 1).all()
    untaught_odds = language.zero_shot(job, rows, {0: split})[0]
    assert (np.abs(odds[0] - untaught_odds)[:2] > 1e-3).all()
    assert catalog.load(str(root)).accepted == before and not list((root / "training").iterdir())


def test_a_fold_of_one_class_and_a_recipe_without_the_stage_are_named(root):
    inputs = ["harmonised/events", "splits", "labels/anemia", untaught.EMBEDDINGS, "weights/champion"]
    job = start(root, "crossvalidate", "evaluation/folds", inputs, task="anemia", recipe={"name": "small"})
    with pytest.raises(
        JobError, match=r"params\.recipe with a stage predictor is missing, .*stages: \[predictor\]"
    ):
        fine_tuned.recipe_of(job)
    job.params["recipe"] = RECIPE
    job.params["fine_tuning"] = {"stepz": 1}
    with pytest.raises(JobError, match=r"recipe small: predictor\.stepz: .*did you mean steps"):
        fine_tuned.recipe_of(job)
    labels = pl.read_parquet(catalog.load(str(root)).files("labels/anemia")).with_columns(
        split=pl.lit("train")
    )
    told = task_questions.questions(labels.filter(pl.col("label") == 1), "anemia", "q?")
    with pytest.raises(ValueError, match="of one class"):
        fine_tuned.questions(told, 4)


@pytest.mark.night
def test_the_champion_is_fine_tuned_on_the_tasks(root):
    ask(root)
    inputs = [
        "harmonised/events",
        "instructions/tasks",
        untaught.EMBEDDINGS,
        "weights/base_model",
        "weights/champion",
    ]
    job = start(root, "train", "weights/predictor", inputs, stage="predictor", recipe=RECIPE)
    command = [sys.executable, "-m", "ray_jobs.train", "--config", job.config.write()]
    ran = subprocess.run(command, cwd=catalog.REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "reloads_and_answers of weights/predictor: passed" in ran.stdout
