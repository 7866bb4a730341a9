"""The champion in the folds of a cross-validation, and trained further: asked only where it has not learned, and on whom it was not taught."""

# ruff: noqa: F811  (fixtures that are imported are arguments here)
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from orchestration import catalog
from ray_jobs import crossvalidate, task_questions, train
from ray_jobs.config import JobError
from ray_jobs.llemr.recipe import Recipe
from ray_jobs.prediction import fine_tuned, language
from tests import untaught
from tests.test_predict_llemr import ask, events, folder, root, start  # noqa: F401


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
