"""Carry what is known forward over a regular grid: the one numeric kernel of the warehouse, run inside its dbt models.

SQL says what became known where (`grid_news`); here each concept is one pass over one column of the grid, in numpy, some ten
times less work than a window function a column. Rows leave in batches of whole clocks, so memory does not follow the table.

news: concept_no (place in `concepts`), place (row of the grid), value, n_obs (null: none of this step), measured_step;
ordered by concept_no and place, at most one row for each. clocks: clock_no, steps, first_row; ordered by clock_no, their
rows lie one after another. concepts: name and for how many hours a value is carried. minutes: length of a step. A value
never crosses from one clock to the next; nothing is known where the limit is passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    edges = np.searchsorted(news["concept_no"].to_numpy(), np.arange(len(concepts) + 1))
    begin = 0
    while begin < len(number):
        end = max(begin + 1, int(np.searchsorted(first, first[begin] + BATCH_ROWS, side="right")) - 1)
        low, high = int(first[begin]), int(first[end - 1] + steps[end - 1])
        start = np.repeat(first[begin:end] - low, steps[begin:end])
        step = (np.arange(high - low) - start).astype(np.int32)
        columns = []
        for (_, carry_h), a, b in zip(concepts, edges[:-1], edges[1:], strict=True):
            at = slice(a + np.searchsorted(place[a:b], low), a + np.searchsorted(place[a:b], high))
            limit = carry_h * 60 // minutes
            columns.append(_cells(start, step, place[at] - low, value[at], n_obs[at], measured[at], limit))
        yield np.repeat(number[begin:end], steps[begin:end]).astype(np.int32), step, columns
        begin = end


def _cells(start, step, place, value, n_obs, measured, limit: int) -> Cells | None:
    """One concept; `start` is the first row of each row's clock."""
    if not len(place):
        return None
    counts = np.zeros(len(step), np.int32)
    counts[place] = n_obs
    latest = np.full(len(step), -1, np.int64)
    latest[place] = np.arange(len(place))
    np.maximum.accumulate(latest, out=latest)
    age = step - measured[latest].astype(np.int32)
    unknown = (latest < 0) | (place[latest] < start) | (age > limit)
    return Cells(value[latest], counts, age, unknown)
