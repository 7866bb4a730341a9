"""Carry what is known forward over a regular grid: the one numeric kernel of the warehouse, run inside its dbt models.

SQL says what became known where (`grid_news`); here each concept is one pass over one column of the grid, in numpy, some ten
times less work than a window function a column. Rows leave in batches of whole clocks, so memory does not follow the table.

news: concept_no (place in `concepts`), place (row of the grid), value, n_obs (null: none of this step), measured_step;
at most one row a concept and place, in any order. clocks: clock_no, steps, first_row; ordered by clock_no, their
rows lie one after another. concepts: name and for how many hours a value is carried. minutes: length of a step. A value
never crosses from one clock to the next; nothing is known where the limit is passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

BATCH_ROWS = 65_536
Concepts = Sequence[tuple[str, int]]


class Cells(NamedTuple):
    """One concept on consecutive rows of the grid; value and age mean nothing where `unknown`."""

    value: np.ndarray
    n_obs: np.ndarray
    age: np.ndarray
    unknown: np.ndarray


def carried(news: pa.Table, clocks: pa.Table, concepts: Concepts, minutes: int = 60) -> pa.RecordBatchReader:
    """One row a step of each clock: clock_no, step, and <concept>_value, _n_obs, _age (in steps) of every concept."""
    fields = [pa.field("clock_no", pa.int32()), pa.field("step", pa.int32())]
    for name, _ in concepts:
        fields += [
            pa.field(f"{name}_value", pa.float64()),
            pa.field(f"{name}_n_obs", pa.int32()),
            pa.field(f"{name}_age", pa.int32()),
        ]
    schema = pa.schema(fields)

    def batches() -> Iterator[pa.RecordBatch]:
        for clock_no, step, columns in _batches(news, clocks, concepts, minutes):
            arrays = [pa.array(clock_no), pa.array(step)]
            for cells in columns:
                if cells is None:
                    none = np.zeros(len(step), np.int32)
                    arrays += [
                        pa.nulls(len(step), pa.float64()),
                        pa.array(none),
                        pa.nulls(len(step), pa.int32()),
                    ]
                else:
                    arrays += [
                        pa.array(cells.value, mask=cells.unknown),
                        pa.array(cells.n_obs),
                        pa.array(cells.age, mask=cells.unknown),
                    ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def known(news: pa.Table, clocks: pa.Table, concepts: Concepts, minutes: int = 60) -> pa.RecordBatchReader:
    """One row a step and concept of which a value is known: clock_no, step, concept, value, n_obs, age (in steps)."""
    names = pa.array([name for name, _ in concepts], pa.string())
    schema = pa.schema(
        {
            "clock_no": pa.int32(),
            "step": pa.int32(),
            "concept": pa.dictionary(pa.int32(), pa.string()),
            "value": pa.float64(),
            "n_obs": pa.int32(),
            "age": pa.int32(),
        }
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for clock_no, step, columns in _batches(news, clocks, concepts, minutes):
            for number, cells in enumerate(columns):
                if cells is not None:
                    rows = np.flatnonzero(~cells.unknown)
                    concept = pa.DictionaryArray.from_arrays(np.full(len(rows), number, np.int32), names)
                    found = (cells.value[rows], cells.n_obs[rows], cells.age[rows])
                    yield pa.RecordBatch.from_arrays(
                        [pa.array(clock_no[rows]), pa.array(step[rows]), concept, *map(pa.array, found)],
                        schema=schema,
                    )

    return pa.RecordBatchReader.from_batches(schema, batches())


def _batches(
    news: pa.Table, clocks: pa.Table, concepts: Concepts, minutes: int
) -> Iterator[tuple[np.ndarray, np.ndarray, list[Cells | None]]]:
    """clock_no and step of consecutive rows, and the cells of each concept there; None where nothing is known at all."""
    number, steps, first = (clocks[c].to_numpy() for c in ("clock_no", "steps", "first_row"))
    place, value, measured = (news[c].to_numpy() for c in ("place", "value", "measured_step"))
    n_obs = news["n_obs"].fill_null(0).to_numpy()
    begins = [0] if len(number) else []
    while begins and begins[-1] < len(number):
        until = int(np.searchsorted(first + steps, first[begins[-1]] + BATCH_ROWS, side="right"))
        begins.append(max(begins[-1] + 1, until))
    # one stable sort of small keys brings the rows of a batch and concept together; in which order does not matter
    batch = np.searchsorted(first[begins[:-1]], place, side="right") - 1
    key = batch * len(concepts) + news["concept_no"].to_numpy()
    parts = max(0, len(begins) - 1) * len(concepts)
    order = np.argsort(key.astype(np.uint16 if parts < 2**16 else np.int64), kind="stable")
    edges = np.searchsorted(key[order], np.arange(parts + 1))
    for part, (begin, end) in enumerate(pairwise(begins)):
        low, high = int(first[begin]), int(first[end - 1] + steps[end - 1])
        start = np.repeat(first[begin:end] - low, steps[begin:end]).astype(np.int32)
        step = np.arange(high - low, dtype=np.int32) - start
        columns = []
        for column, (_, carry_h) in enumerate(concepts):
            a, b = edges[part * len(concepts) + column :][:2]
            at, limit = order[a:b], carry_h * 60 // minutes
            columns.append(_cells(start, step, place[at] - low, value[at], n_obs[at], measured[at], limit))
        yield np.repeat(number[begin:end], steps[begin:end]).astype(np.int32), step, columns


def _cells(start, step, place, value, n_obs, measured, limit: int) -> Cells | None:
    """One concept; `start` is the first row of each row's clock."""
    if not len(place):
        return None
    values, counts, measured_at = (np.zeros(len(step), kind) for kind in (np.float64, np.int32, np.int32))
    values[place], counts[place], measured_at[place] = value, n_obs, measured
    latest = np.full(len(step), -1, np.int32)  # row of the newest news up to this one, of whichever clock
    latest[place] = place
    np.maximum.accumulate(latest, out=latest)
    age = step - measured_at[latest]
    return Cells(values[latest], counts, age, (latest < start) | (age > limit))
