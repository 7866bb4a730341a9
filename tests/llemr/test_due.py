"""Checkpoints by steps and by time."""

import time

from ray_jobs.llemr.due import Due
from ray_jobs.llemr.recipe import StageRecipe

STAGE = {"sets": ["schema_alignment"], "steps": 100, "rows": 4, "lr": 0.001}


def due_at(stage: dict, seconds_a_step: float, steps: int, agreed=bool) -> list[int]:
    due, found = Due(StageRecipe(**STAGE, **stage), agreed), []
    for done in range(1, steps + 1):
        time.sleep(seconds_a_step)
        if due(done):
            found.append(done)
    return found


def test_by_default_each_hundred_steps():
    assert due_at({}, 0, 250) == [100, 200]
    assert due_at({"checkpoint_every": 20}, 0, 50) == [20, 40]


def test_by_time_alone_and_beside_steps():
    assert 2 <= len(due_at({"checkpoint_minutes": 0.05 / 60}, 0.02, 12)) <= 12
    assert due_at({"checkpoint_minutes": 60}, 0, 250) == []
    assert due_at({"checkpoint_minutes": 60, "checkpoint_every": 5}, 0, 12) == [5, 10]


def test_all_workers_follow_the_first_ones_clock():
    first_says = iter([False, True, False])
    assert due_at({"checkpoint_minutes": 1e-9}, 0.001, 3, lambda mine: next(first_says)) == [2]
