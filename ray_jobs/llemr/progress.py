"""Progress of a training: workers say lines and losses, the driver logs them while it waits for Ray."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import ray

POLL_S, LOG_EVERY_S = 1.0, 5.0


@ray.remote(num_cpus=0)
class Board:
    """Holds what workers said until the driver takes it."""

    def __init__(self):
        self._lines: list[str] = []
        self._losses: list[tuple[str, int, float]] = []
        self._stopped: str | None = None

    def say(self, line: str) -> None:
        self._lines.append(line)

    def loss(self, phase: str, step: int, value: float) -> None:
        self._losses.append((phase, step, value))

    def stop(self, reason: str) -> None:
        """The training ended before its last step, and another try would go the same way."""
        self._stopped = reason

    def take(self) -> tuple[list[str], list[tuple[str, int, float]], str | None]:
        taken = self._lines, self._losses, self._stopped
        self._lines, self._losses = [], []
        return taken


@dataclass
class Curves:
    """Losses by phase and step, and why the training stopped early, if it did.

    A step that was repeated after a failure keeps its last loss.
    """

    by_phase: dict[str, dict[int, float]] = field(default_factory=dict)
    stopped: str | None = None

    def points(self) -> dict[str, list[tuple[int, float]]]:
        return {phase: sorted(losses.items()) for phase, losses in self.by_phase.items()}


@contextlib.contextmanager
def shown(board, log: logging.Logger) -> Iterator[Curves]:
    """Log what workers say for the length of the block; gives the losses."""
    curves, ended = Curves(), threading.Event()

    def take() -> None:
        lines, losses, curves.stopped = ray.get(board.take.remote())
        for line in lines:
            log.info(line)
        for phase, step, value in losses:
            curves.by_phase.setdefault(phase, {})[step] = value

    def poll() -> None:
        while not ended.wait(POLL_S):
            take()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield curves
    finally:
        ended.set()
        thread.join()
        take()


class Pace:
    """How fast it goes, and how long it will take."""

    def __init__(self, first: int, steps: int):
        self.first, self.steps = first, steps
        self.started = self.logged = time.monotonic()
        self.questions = self.tokens = 0

    def add(self, questions: int, tokens: int) -> None:
        self.questions += questions
        self.tokens += tokens

    def due(self) -> bool:
        if time.monotonic() - self.logged < LOG_EVERY_S:
            return False
        self.logged = time.monotonic()
        return True

    def line(self, done: int, loss: float) -> str:
        spent = max(time.monotonic() - self.started, 1e-6)
        left = spent / (done - self.first) * (self.steps - done)
        return (
            f"step {done} of {self.steps}, loss {loss:.3f}, {self.questions / spent:.0f} questions/s, "
            f"{self.tokens / spent:.0f} tokens/s, ETA {left:.0f} s"
        )
