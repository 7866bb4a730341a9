"""Progress of a training: workers say lines and losses, the driver logs them while it waits for Ray."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ray
from tensorboardX import SummaryWriter

from ray_jobs.llemr import speed

POLL_S, LOG_EVERY_S = 1.0, 5.0
SETTLED = 20  # steps after which a training runs evenly

Step = tuple[
    str, int, dict[str, float]
]  # phase, step, its figures: loss, tokens_a_second, memory_gb, mfu if known


@ray.remote(num_cpus=0)
class Board:
    """Holds what workers said until the driver takes it."""

    def __init__(self):
        self._lines: list[str] = []
        self._steps: list[Step] = []
        self._stopped: str | None = None

    def say(self, line: str) -> None:
        self._lines.append(line)

    def step(self, phase: str, step: int, figures: dict[str, float]) -> None:
        self._steps.append((phase, step, figures))

    def stop(self, reason: str) -> None:
        """The training ended before its last step, and another try would go the same way."""
        self._stopped = reason

    def stopped(self) -> str | None:
        return self._stopped

    def take(self) -> tuple[list[str], list[Step], str | None]:
        taken = self._lines, self._steps, self._stopped
        self._lines, self._steps = [], []
        return taken


@dataclass
class Curves:
    """Figures by phase and step, and why the training stopped early, if it did. A step that was repeated after a failure
    keeps its last figures."""

    steps: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    stopped: str | None = None

    def points(self, name: str = "loss") -> dict[str, list[tuple[int, float]]]:
        """(step, value) by phase, of those steps that tell this figure."""
        told = {p: [(n, f[name]) for n, f in sorted(s.items()) if name in f] for p, s in self.steps.items()}
        return {phase: points for phase, points in told.items() if points}

    def tensorboard(self, folder: Path) -> None:
        """Write every figure as TensorBoard files, a run a phase: `tensorboard --logdir <folder>`."""
        with Writers(folder) as write:
            for phase, steps in self.steps.items():
                for step, figures in sorted(steps.items()):
                    write(phase, step, figures)


class Writers(contextlib.ExitStack):
    """TensorBoard files below a folder, one run a phase; what is written is on the disk a second later."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder, self.open = folder, {}

    def __call__(self, phase: str, step: int, figures: dict[str, float]) -> None:
        if phase not in self.open:
            self.open[phase] = self.enter_context(SummaryWriter(str(self.folder / phase), flush_secs=1))
        for name, value in figures.items():
            self.open[phase].add_scalar(name, value, step)


@contextlib.contextmanager
def shown(board, log: logging.Logger, folder: Path) -> Iterator[Curves]:
    """Log what workers say for the length of the block, and write it to TensorBoard files as it comes; gives the figures."""
    curves, ended = Curves(), threading.Event()

    def take() -> None:
        lines, steps, curves.stopped = ray.get(board.take.remote())
        for line in lines:
            log.info(line)
        for phase, step, figures in steps:
            curves.steps.setdefault(phase, {})[step] = figures
            write(phase, step, figures)

    def poll() -> None:
        while not ended.wait(POLL_S):
            take()

    thread = threading.Thread(target=poll, daemon=True)
    with Writers(folder) as write:
        thread.start()
        try:
            yield curves
        finally:
            ended.set()
            thread.join()
            take()


class Pace:
    """How fast it goes, how long it will take, and what it uses."""

    def __init__(self, first: int, steps: int, operations: float = 0.0, workers: int = 1):
        """`operations`: of one token (see `speed.operations`), for the share of the GPUs' peak."""
        self.first, self.steps, self.operations = first, steps, operations
        self.peak = speed.peak()
        self.workers = workers
        self.started = self.logged = time.monotonic()
        self.questions = self.tokens = 0
        self.marks = [(self.started, time.process_time())]

    def add(self, questions: int, tokens: int) -> None:
        """One more step is done."""
        self.questions += questions
        self.tokens += tokens
        self.marks.append((time.monotonic(), time.process_time()))

    def now(self, tokens: int) -> dict[str, float]:
        """Figures of the last step, which ran so many tokens over all workers."""
        rate = tokens / max(self.marks[-1][0] - self.marks[-2][0], 1e-6)
        used = {"mfu": rate * self.operations / (self.peak * self.workers)} if self.peak else {}
        return {"tokens_a_second": rate, "memory_gb": speed.memory_gb(), **used}

    def due(self) -> bool:
        if time.monotonic() - self.logged < LOG_EVERY_S:
            return False
        self.logged = time.monotonic()
        return True

    def figures(self) -> dict[str, float]:
        """Wall and CPU seconds of a step in this process (medians of those after SETTLED), real tokens a second of all
        workers, memory in GB, and the share of the GPUs' peak (`mfu`) where that is known."""
        steps = np.diff(np.array(self.marks), axis=0)
        wall, cpu = np.median(steps[SETTLED:] if len(steps) > SETTLED else steps, axis=0)
        tokens = self.tokens / max(self.marks[-1][0] - self.started, 1e-6)
        found = {"step_s": float(wall), "step_cpu_s": float(cpu), "tokens_a_second": tokens}
        if self.peak:
            found["mfu"] = tokens * self.operations / (self.peak * self.workers)
        return {name: round(value, 5) for name, value in {**found, "memory_gb": speed.memory_gb()}.items()}

    def line(self, done: int, loss: float) -> str:
        spent = max(time.monotonic() - self.started, 1e-6)
        left = spent / (done - self.first) * (self.steps - done)
        now = self.figures()
        used = f", {now['mfu']:.1%} of the peak" if "mfu" in now else ""
        return (
            f"step {done} of {self.steps}, loss {loss:.3f}, {self.questions / spent:.0f} questions/s, "
            f"{self.tokens / spent:.0f} tokens/s{used}, {now['memory_gb']:.1f} GB, ETA {left:.0f} s"
        )
