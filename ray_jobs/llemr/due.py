"""When a checkpoint is due: each so many steps, and each so many minutes, by the clock of one worker for all."""

from __future__ import annotations

import time
from collections.abc import Callable

from ray_jobs.llemr.recipe import StageRecipe


class Due:
    """Asked once after every step, by every worker."""

    def __init__(self, stage: StageRecipe, agreed: Callable[[bool], bool]):
        """`agreed` gives every worker what the first one says (`Trainer.agreed`): clocks differ, a checkpoint is joint."""
        self.every, self.minutes, self.agreed = stage.steps_a_checkpoint, stage.checkpoint_minutes, agreed
        self.last = time.monotonic()

    def __call__(self, done: int) -> bool:
        """Whether to keep a checkpoint after `done` steps of the phase; if so, the minutes count anew."""
        now = time.monotonic()
        by_steps = self.every is not None and done % self.every == 0
        due = by_steps or (self.minutes is not None and self.agreed(now - self.last >= 60 * self.minutes))
        if due:
            self.last = now
        return due
