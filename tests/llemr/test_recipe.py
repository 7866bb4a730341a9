"""Recipes and what a training tells of itself: mistakes, memory, curves."""

import itertools
import time

import pytest
import torch

from ray_jobs.config import JobError
from ray_jobs.llemr import memory, speed
from ray_jobs.llemr.engine import parts
from ray_jobs.llemr.muon import orthogonal
from ray_jobs.llemr.progress import Curves, Pace, Writers
from ray_jobs.llemr.recipe import Recipe
from ray_jobs.llemr.worker import out_of_memory

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
        (
            {"workers": 4, "min_workers": 1, "stage1": RECIPE["stage1"] | {"micro_batch_rows": 1}},
            "stage1.micro_batch_rows is 1: of 4 rows a step one of 3 workers would have none .* set it to 2 or more",
        ),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(change, message):
    with pytest.raises(JobError, match=message):
        Recipe.of(RECIPE | change)


def test_no_worker_of_an_accepted_recipe_is_without_a_row():
    for workers, rows, micro in itertools.product((2, 3, 4, 6), (12, 24, 60), (1, 2, 3, 8)):
        stage = RECIPE["stage1"] | {"rows": rows, "micro_batch_rows": micro}
        try:
            recipe = Recipe.of(RECIPE | {"workers": workers, "min_workers": 1, "stage1": stage})
        except JobError:
            continue
        for count in range(1, workers + 1):
            for rank in range(count):
                dealt = parts(range(rows)[rank::count], recipe.stage1.micro_batches(count))
                assert all(dealt) and sum(map(len, dealt)) == len(range(rows)[rank::count])


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
    curves = Curves({"stage1": {2: {"loss": 0.25}, 1: {"loss": 0.5, "memory_gb": 1.0}}})
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
    assert pace.now(10).keys() == {"tokens_a_second", "memory_gb", "mfu"}
    assert curves.points() == {"stage1": [(1, 0.5), (2, 0.25)]}
    assert curves.points("memory_gb") == {"stage1": [(1, 1.0)]} and curves.points("mfu") == {}


def test_curves_are_written_for_tensorboard(tmp_path):
    Curves({"blind": {1: {"loss": 0.5, "tokens_a_second": 100.0}}}).tensorboard(tmp_path)
    (file,) = (tmp_path / "blind").glob("events.out.tfevents.*")
    assert b"tokens_a_second" in file.read_bytes()


def test_curves_are_on_the_disk_while_the_training_runs(tmp_path):
    with Writers(tmp_path) as write:
        write("stage1", 1, {"loss": 0.5, "memory_gb": 2.0})
        (file,) = (tmp_path / "stage1").glob("events.out.tfevents.*")
        until = time.monotonic() + 30
        while b"memory_gb" not in file.read_bytes():
            assert time.monotonic() < until
            time.sleep(0.1)


def test_muon_makes_singular_values_alike():
    for shape in ((2, 16, 48), (2, 48, 16)):
        values = torch.linalg.svdvals(
            orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        )
        assert values.min() > 0.3 and values.max() < 1.3
