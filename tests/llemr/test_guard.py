"""The guard of a training's loss, on finite plateaus, single spikes and resumed trainings."""

from dataclasses import asdict

import pytest

from ray_jobs.llemr.guard import PATIENCE, Guard, LossWentWrong


def seen(losses: list[float], guard: Guard | None = None) -> Guard:
    guard = guard or Guard()
    for loss in losses:
        guard.see(loss)
    return guard


@pytest.mark.parametrize("height", [3.5, 10.0, 1000.0])
def test_a_plateau_above_three_times_the_usual_ends_the_training(height):
    guard = seen([1.0] * 30 + [height] * (PATIENCE - 1))
    with pytest.raises(LossWentWrong, match="usual was 1"):
        guard.see(height)


def test_a_loss_that_is_no_number_ends_it_at_once():
    for loss in (float("nan"), float("inf")):
        with pytest.raises(LossWentWrong):
            Guard().see(loss)


def test_spikes_that_pass_and_a_lucky_start_do_not_end_it():
    assert seen([1.0] * 10 + ([9.0] * (PATIENCE - 1) + [1.0]) * 5).usual == pytest.approx(1.0)
    assert seen([0.1] + [1.0] * 50).usual > 0.8
    assert seen([5 * 0.98**step for step in range(300)]).high == 0


def test_a_resumed_training_is_judged_as_one_that_was_not_stopped():
    guard = Guard(**asdict(seen([1.0] * 30 + [5.0] * (PATIENCE - 1))))
    with pytest.raises(LossWentWrong):
        guard.see(5.0)
