"""What each step trains on: a function of (seed, step) only, so that a resumed run and any number of workers agree.

A step takes `rows` records, each with at most QUESTIONS_A_ROW of its questions; all rows are seen once an epoch, in an
order drawn anew for each epoch. A share of the rows is trained with the events withheld, so that asking the model without
its events is a condition it knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_jobs.llemr.data import Questions

QUESTIONS_A_ROW = 8


@dataclass(frozen=True)
class Row:
    """One packed row: a record (event indices, empty if withheld) and the indices of the questions asked about it."""

    events: np.ndarray
    questions: np.ndarray


class Plan:
    """Rows by step."""

    def __init__(self, questions: Questions, rows: int, withheld: float, seed: int):
        self.questions, self.rows, self.withheld, self.seed = questions, rows, withheld, seed
        self.units = [
            (record, part)
            for record, asked in enumerate(questions.by_record())
            for part in np.array_split(asked, max(1, -(-len(asked) // QUESTIONS_A_ROW)))
            if len(part)
        ]

    @property
    def steps_an_epoch(self) -> float:
        return len(self.units) / self.rows

    def step(self, step: int) -> list[Row]:
        """The global batch of one step, longest rows first, which keeps padding low when it is dealt out."""
        place = np.arange(step * self.rows, (step + 1) * self.rows)
        hidden = np.random.default_rng([self.seed, 2, step]).random(self.rows) < self.withheld
        rows = []
        for at, withhold in zip(place, hidden, strict=True):
            epoch, index = divmod(int(at), len(self.units))
            record, asked = self.units[self._order(epoch)[index]]
            events = self.questions.records[record]
            rows.append(Row(events[:0] if withhold else events, asked))
        return sorted(rows, key=self._length, reverse=True)

    def targets(self, rows: list[Row]) -> int:
        """Trained tokens of these rows: the number by which a step's loss is divided."""
        return sum(len(self.questions.answer[i]) for row in rows for i in row.questions)

    def _length(self, row: Row) -> int:
        return len(row.events) + sum(
            len(self.questions.prompt[i]) + len(self.questions.answer[i]) for i in row.questions
        )

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._drawn = np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.units))
        return self._drawn
