"""Packing: records and their questions side by side, with hardly any padding.

    start, events ..., question 1, answer 1, question 2, answer 2, ...   start, events ..., question 1, ...

A question attends to its record and to itself, never to another question or record, and its positions follow on the
record's as if it stood alone. Records are read once for all their questions, and several records share a row. The result is
exact: the logits equal those of unpacked rows up to float rounding.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

ROW_LENGTH = 256  # most positions of a row, unless one record with its questions is longer
TRIED = 64  # most row lengths that are tried
SLACK = 1.05  # so many more slots are worth shorter rows, in which attention costs less
FLEX_BLOCK = 128  # flex attention works in squares of so many positions

Asked = tuple[np.ndarray, np.ndarray]  # question tokens, answer tokens
Unit = tuple[np.ndarray, Sequence[Asked]]  # event indices of a record, what is asked about it


@dataclass
class Batch:
    """B rows of at most L positions; event positions hold the placeholder 0 in `ids` until the splice."""

    ids: torch.Tensor  # int64 [B, L]
    position: torch.Tensor  # int64 [B, L]
    record: torch.Tensor  # int64 [B, L]: which record of the row, from 0; -1 padding
    segment: torch.Tensor  # int64 [B, L]: 0 the record, k its k-th question
    events: np.ndarray  # int64 [n]: index of each event into the store (or the caller's own arrays)
    event_at: torch.Tensor  # int64 [n]: where it goes in the flattened B * L
    target_at: torch.Tensor  # int64 [m]: flattened positions whose next token is trained
    target: torch.Tensor  # int64 [m]: that next token

    @property
    def tokens(self) -> int:
        """Positions that are no padding."""
        return int((self.record >= 0).sum())

    def mask(self) -> torch.Tensor:
        """Boolean [B, 1, L, L], true where the row position (dim 2) may look at the column position (dim 3)."""
        length, device = self.ids.shape[1], self.ids.device
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        same_record = self.record[:, :, None] == self.record[:, None, :]
        same_question = self.segment[:, :, None] == self.segment[:, None, :]
        return (causal & same_record & (same_question | (self.segment[:, None, :] == 0)))[:, None]

    def block_mask(self):
        """The same for flex attention, which passes over blocks in which nothing is looked at."""
        from torch.nn.attention.flex_attention import create_block_mask

        record, segment = self.record, self.segment

        def looks(row, _, at, to):
            same_question = segment[row, at] == segment[row, to]
            return (
                (at >= to) & (record[row, at] == record[row, to]) & (same_question | (segment[row, to] == 0))
            )

        rows, length = self.ids.shape
        return create_block_mask(looks, rows, None, length, length, device=str(self.ids.device))

    def to(self, device: torch.device | str) -> Batch:
        """On another device, but for `events`, which index what may stay behind."""
        moved = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **moved)


def pack(
    before: Sequence[int], units: Sequence[Unit], row_length: int = ROW_LENGTH, multiple: int = 1
) -> Batch:
    """Pack units; `before` are the tokens before the events. Targets come in the order of the units and questions.

    Rows have the least length, up to `row_length`, at which the batch has about as few slots as at any.
    multiple: rows are as long as the longest, rounded up to this.
    """
    lengths = [len(before) + len(e) + sum(len(q) + len(a) for q, a in asked) for e, asked in units]
    least = -(-max(lengths) // multiple) * multiple
    tried = range(least, max(least, row_length) + 1, max(multiple, -(-row_length // TRIED)))
    found = [_places(lengths, room, multiple) for room in tried]
    enough = SLACK * min(math.prod(shape) for _, shape in found)
    places, shape = next(f for f in found if math.prod(f[1]) <= enough)
    ids, position = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    record, segment = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    event_at, target_at, target = [], [], []
    for (row, start, number), length, (events, asked) in zip(places, lengths, units, strict=True):
        prefix = len(before) + len(events)
        ids[row, start : start + len(before)] = before
        position[row, start : start + prefix] = np.arange(prefix)
        record[row, start : start + length] = number
        event_at.append(row * shape[1] + start + len(before) + np.arange(len(events)))
        at = start + prefix
        for k, (question, answer) in enumerate(asked, 1):
            middle, end = at + len(question), at + len(question) + len(answer)
            ids[row, at:middle] = question
            ids[row, middle:end] = answer
            position[row, at:end] = prefix + np.arange(end - at)
            segment[row, at:end] = k
            target_at.append(row * shape[1] + np.arange(middle - 1, end - 1))
            target.append(answer)
            at = end
    return Batch(
        *(torch.from_numpy(array) for array in (ids, position, record, segment)),
        events=np.concatenate([events for events, _ in units]).astype(np.int64),
        event_at=_tensor(event_at),
        target_at=_tensor(target_at),
        target=_tensor(target),
    )


def _places(
    lengths: list[int], room: int, multiple: int
) -> tuple[list[tuple[int, int, int]], tuple[int, int]]:
    """Where each unit goes, as (row, start, number within the row), and the batch's shape.

    Best fit, decreasing: the longest units first, each into the fullest row that has room for it.
    """
    used: list[tuple[int, int]] = []  # (positions taken, minus the row's number), sorted
    held: list[int] = []
    places: list[tuple[int, int, int]] = [(0, 0, 0)] * len(lengths)
    for unit in sorted(range(len(lengths)), key=lambda u: -lengths[u]):
        fitting = bisect.bisect_right(used, (room - lengths[unit], 0))
        full, row = used.pop(fitting - 1) if fitting else (0, -len(held))
        if not fitting:
            held.append(0)
        places[unit] = (-row, full, held[-row])
        held[-row] += 1
        bisect.insort(used, (full + lengths[unit], row))
    return places, (len(used), -(-used[-1][0] // multiple) * multiple)


def _tensor(pieces: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(pieces).astype(np.int64))
