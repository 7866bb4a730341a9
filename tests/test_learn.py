"""`make learn` on a small house: all stages are trained and evaluated for a seed, and the night is left alone."""

import logging

import pytest

from orchestration import catalog
from ray_jobs import learn
from ray_jobs.config import JobError
from ray_jobs.contestants import SETS
from ray_jobs.llemr.recipe import Recipe
from tests import untaught

STAGE = {"steps": 2, "rows": 4, "lr": 0.001, "warmup": 1}
RECIPE = Recipe.of({
    "name": "short", "hardware": "any", "memory_per_worker_gb": 2, "cpus_per_worker": 1,
    "base_model": {"layers": 1, "width": 32, "heads": 2, "mlp": 48, "replicas": 1, "steps": 2, "threads": 1},
    "stage1": STAGE | {"sets": ["schema_alignment"], "align_steps": 2},
    "stage2": STAGE | {"sets": ["schema_alignment", "clinical_reasoning"], "blind_steps": 2},
})  # fmt: skip


@pytest.mark.night  # three trainings and an evaluation on Ray
def test_a_seed_is_trained_and_evaluated_beside_the_night(tmp_path):
    untaught.house(tmp_path / "night", tmp_path, admissions=150)
    before = catalog.load(str(tmp_path / "night")).accepted
    found = learn.learn(str(tmp_path / "night"), RECIPE, 20, tmp_path / "root", logging.getLogger("learn"))
    assert catalog.load(str(tmp_path / "night")).accepted == before
    assert set(found) == set(SETS)
    told = learn.document({1: found})
    for row in ("blind", "stage 1", "stage 2", "stage 2, events swapped", "stage 2 minus blind"):
        assert told.count(f"\n| {row} | ") == 2, row


def test_the_document_has_a_column_a_seed_and_a_line_a_family():
    figure = {"value": 0.5, "low": 0.25, "high": 0.75, "questions": 4}
    row = {"exact": figure, "by_family": {"extreme": figure, "exists": figure | {"value": None}}}
    rows = {name: row for name in ("shortcut rule", "blind", "stage 1", "stage 2")}
    of_a_set = {
        "questions": 4, "patients": 2, "rows": rows,
        "differences": {"stage 2 minus blind": {**figure, "by_family": row["by_family"]}},
    }  # fmt: skip
    told = learn.document({seed: dict.fromkeys(SETS, of_a_set) for seed in (1, 2)})
    assert "| schema alignment, 4 questions of 2 held-out patients | seed 1 | seed 2 |" in told
    assert "| blind | 50.0 (25.0 to 75.0) | 50.0 (25.0 to 75.0) |" in told
    assert "| extreme | 4 | 50.0 50.0 |" in told


def test_an_unknown_recipe_is_refused_with_the_names_of_those_that_there_are():
    with pytest.raises(JobError, match=r"no recipe 'smal'; there are .*small.*tiny"):
        Recipe.named("smal")
