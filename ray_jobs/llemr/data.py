"""Events and questions as flat arrays, so that the training loop only indexes and never parses.

`EventStore` holds every event of every visit once, sorted by visit and time. `Questions` holds token ids and, for each
question, which record it is asked about: the events of its visit with `available_at <= cutoff_at`, thinned by rule to
the event budget. Questions with the same visit and cut-off share one record.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import fsspec
import numpy as np
import polars as pl
from fsspec.implementations.local import LocalFileSystem

from ray_jobs.config import JobError
from ray_jobs.llemr.tokenizer import DIGITS

VALUE_PLACES, HOUR_PLACES = 7, 6  # printed characters kept of a value ("1234.56") and of the hour ("-123.4")
BLANK = len(DIGITS)  # the code of an empty place
EVENT_COLUMNS = [
    "hospital",
    "visit_id",
    "event_at",
    "available_at",
    "kind",
    "concept",
    "value",
    "unit",
    "text",
    "row_id",
]
Dictionary = Mapping[
    str, tuple[int, float | None, float | None]
]  # concept: decimals, lower and upper normal limit
_CODE = np.full(256, BLANK, np.uint8)
_CODE[[ord(c) for c in DIGITS]] = np.arange(len(DIGITS))


@dataclass
class EventStore:
    """Every event once; arrays of length n, sorted by visit, time and row. `start[v]:start[v + 1]` are visit v's."""

    text: np.ndarray  # int32, index into `texts`
    kind: np.ndarray  # int16, index into `kinds`
    unit: np.ndarray  # int16, index into `units`; unit 0 is none
    value: np.ndarray  # float64, nan where the event has no number
    digits: np.ndarray  # int8, decimals with which the value is printed
    reference: (
        np.ndarray
    )  # float32, place in the reference range: -1 its lower end, 1 its upper; 0 where there is none
    previous: (
        np.ndarray
    )  # float64, the value before of the same text if it was known by then, nan where there is none
    hours: np.ndarray  # float64, hours since admission, negative before it
    available: np.ndarray  # int64, microseconds UTC
    row_id: np.ndarray  # object, leads back to the export
    start: np.ndarray  # int64, one per visit and one more
    texts: list[str]
    kinds: list[str]
    units: list[str]
    visits: dict[tuple[str, str], int]

    @classmethod
    def read(cls, files: Sequence[str], dictionary: Dictionary) -> EventStore:
        """Read `harmonised/events`."""
        return cls.of(read_frames(files, EVENT_COLUMNS), dictionary)

    @classmethod
    def of(cls, events: pl.DataFrame, dictionary: Dictionary) -> EventStore:
        events = events.filter(pl.col("visit_id").is_not_null()).sort(
            "hospital", "visit_id", "event_at", "row_id", "text", maintain_order=True
        )
        visit = events.select(pl.struct("hospital", "visit_id").rle_id()).to_series().to_numpy()
        at = events["event_at"].cast(pl.Datetime("us")).to_physical().to_numpy()
        start = np.concatenate([np.flatnonzero(np.diff(visit, prepend=-1)), [len(visit)]]).astype(np.int64)
        admitted = at[start[:-1]]
        available = events["available_at"].cast(pl.Datetime("us")).to_physical().to_numpy()
        admission = np.flatnonzero((events["kind"] == "admission").to_numpy())
        first_known_last = admission[np.lexsort((-admission, -available[admission]))]
        admitted[visit[first_known_last]] = at[first_known_last]
        texts, text = _codes(events["text"])
        kinds, kind = _codes(events["kind"])
        units, unit = _codes(events["unit"].fill_null(""), first="")
        concepts, concept = _codes(events["concept"].fill_null(""))
        value = events["value"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        unknown = (-1, None, None)
        known = np.array([dictionary.get(c, unknown) for c in concepts] or [unknown], np.float64)[concept]
        firsts = start[:-1]
        return cls(
            text=text.astype(np.int32),
            kind=kind.astype(np.int16),
            unit=unit.astype(np.int16),
            value=value,
            digits=_digits(value, known[:, 0].astype(np.int8)),
            reference=_reference(value, *known[:, 1:].T),
            previous=_previous(visit, text, available, value),
            hours=(at - admitted[visit]) / 3.6e9,
            available=available,
            row_id=events["row_id"].to_numpy(),
            start=start,
            texts=texts,
            kinds=kinds,
            units=units,
            visits={
                key: i
                for i, key in enumerate(
                    zip(events["hospital"][firsts], events["visit_id"][firsts], strict=True)
                )
            },
        )

    def visible(self, visit: int, cutoff: int, budget: int) -> np.ndarray:
        """Indices of the record that a question with this cut-off (microseconds) may read, in order of time.

        Hours count from the admission, so before that is known nothing can be read.
        Over the budget, these stay: first the newest event of each text, then other events but hourly vitals from the
        newest back, then vitals from the newest back.
        """
        seen = np.arange(self.start[visit], self.start[visit + 1])
        seen = seen[self.available[seen] <= cutoff]
        if "admission" not in {self.kinds[k] for k in np.unique(self.kind[seen])}:
            return seen[:0]
        if len(seen) <= budget:
            return seen
        newest_first = seen[::-1]
        _, newest = np.unique(self.text[newest_first], return_index=True)
        rank = np.where([self.kinds[k] == "vital" for k in self.kind[newest_first]], 2, 1)
        rank[newest] = 0
        return np.sort(newest_first[np.argsort(rank, kind="stable")[:budget]])


def printed(value: np.ndarray, digits: np.ndarray, places: int) -> np.ndarray:
    """Values as they are printed, one code a place from the left: uint8 [n, places], BLANK where nothing stands."""
    lines = ["" if np.isnan(v) else f"{v:.{d}f}"[:places] for v, d in zip(value, digits, strict=True)]
    raw = np.array(lines, dtype=f"S{places}").view(np.uint8).reshape(len(lines), places)
    return _CODE[raw]


def _digits(value: np.ndarray, by_concept: np.ndarray) -> np.ndarray:
    """The dictionary's decimals; a number outside the dictionary (an age, a dose) gets as many as it has, at most 2."""
    own = np.full(len(value), 2, np.int8)
    for decimals in (1, 0):
        own[np.isclose(value, np.round(value, decimals), rtol=0, atol=1e-9)] = decimals
    return np.where(by_concept >= 0, by_concept, own)


def _reference(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where values stand in their reference range, clipped to 3 half widths from its middle; 0 without a range.

    A range of one value (a full coma score) has no width: its value is in the middle, any other at an end.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        place = (2 * value - low - high) / (high - low)
    return np.nan_to_num(np.clip(place, -3, 3)).astype(np.float32)


def _previous(visit: np.ndarray, text: np.ndarray, available: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Of each event the value before of the same visit and text, among those that were known when it became known.

    What is known only later is passed over, so that it changes nothing before. Events come in the order of time.
    """
    order = np.lexsort((np.arange(len(visit)), text, visit))
    same = np.zeros(len(order), bool)
    same[1:] = (np.diff(visit[order]) == 0) & (np.diff(text[order]) == 0)
    before = np.full(len(order), -1)
    before[order[1:]] = np.where(same[1:], order[:-1], -1)
    found = before.copy()
    while len(late := np.flatnonzero((found >= 0) & (available[found] > available))):
        found[late] = before[found[late]]
    return np.where(found >= 0, value[found], np.nan)


def _codes(column: pl.Series, first: str | None = None) -> tuple[list[str], np.ndarray]:
    names = sorted(column.unique().to_list())
    if first is not None:
        names = [first, *[n for n in names if n != first]]
    order = {name: i for i, name in enumerate(names)}
    return names, column.replace_strict(order, return_dtype=pl.Int32).to_numpy()


@dataclass
class Questions:
    """Questions as token ids and the record of each; `records[record[i]]` are the event indices of question i."""

    frame: pl.DataFrame
    prompt: list[np.ndarray]  # question tokens, int32
    answer: list[np.ndarray]  # answer tokens with the end token, int32
    record: np.ndarray  # int32
    records: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.prompt)

    def by_record(self) -> list[np.ndarray]:
        """Question indices of each record."""
        order = np.argsort(self.record, kind="stable")
        return np.split(order, np.searchsorted(self.record[order], np.arange(1, len(self.records))))


def records_of(frame: pl.DataFrame, store: EventStore, budget: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The record each row reads: (record index per row, event indices per record); empty for a visit without any event."""
    keys = zip(frame["hospital"], frame["visit_id"], _micro(frame["cutoff_at"]), strict=True)
    seen: dict[tuple, int] = {}
    record = np.array([seen.setdefault(key, len(seen)) for key in keys], np.int32)
    nothing = np.empty(0, np.int64)
    records = [
        store.visible(store.visits[hospital, visit], cutoff, budget)
        if (hospital, visit) in store.visits
        else nothing
        for hospital, visit, cutoff in seen
    ]
    return record, records


def _micro(column: pl.Series) -> np.ndarray:
    return column.cast(pl.Datetime("us")).to_physical().to_numpy()


def tokenise(texts: Sequence[str], tokenizer, after: Sequence[int] = ()) -> list[np.ndarray]:
    """Token ids of each text followed by `after`; equal texts are encoded once."""
    unique = list(dict.fromkeys(texts))
    ids = tokenizer(unique, add_special_tokens=False)["input_ids"] if unique else []
    known = {text: np.array([*i, *after], np.int32) for text, i in zip(unique, ids, strict=True)}
    return [known[text] for text in texts]


def questions_of(frame: pl.DataFrame, store: EventStore, tokenizer, parts, budget: int) -> Questions:
    """Index an instruction frame, whose `says` is what a model is taught to answer.

    `parts` is `tokenizer.prompt_parts` (what stands around events and question).
    """
    _, between, after = parts
    record, records = records_of(frame, store, budget)
    prompts = tokenise(frame["question"].to_list(), tokenizer, after)
    if between:
        prompts = [np.concatenate([np.array(between, np.int32), p]) for p in prompts]
    answers = tokenise(frame["says"].to_list(), tokenizer, [tokenizer.eos_token_id])
    return Questions(frame, prompts, answers, record, records)


def read_frames(urls: Sequence[str], columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Parquet files at any fsspec URLs as one frame."""
    return pl.concat([pl.read_parquet(_bytes(url), columns=columns) for url in urls])


def dictionary(concepts_csv: str) -> Dictionary:
    """Printed decimals and reference range of each concept, from the clinical dictionary."""
    columns = ["concept", "digits", "normal_low", "normal_high"]
    table = pl.read_csv(concepts_csv, columns=columns, infer_schema_length=None).select(columns)
    return {concept: (digits, low, high) for concept, digits, low, high in table.iter_rows()}


def text_vectors(folder: str, texts: Sequence[str]) -> np.ndarray:
    """float32 [len(texts), dimensions] from `embeddings/<encoder>`; `folder` is the version directory's URL.

    Raises JobError if a text has no vector: the embeddings are older than the events.
    """
    known, vectors = _embedded(folder)
    rows = pl.DataFrame({"text": list(texts)}).join(known, on="text", how="left", maintain_order="left")[
        "row"
    ]
    if rows.null_count():
        raise JobError(
            f"{rows.null_count()} event texts have no vector in {folder}; materialise the embeddings again"
        )
    return vectors[rows.to_numpy()].astype(np.float32)


@functools.lru_cache(maxsize=1)  # a server asks for the same version again and again
def _embedded(folder: str) -> tuple[pl.DataFrame, np.ndarray]:
    """The rows of the texts, and the vectors in the order of the rows; from a local folder only those are read that are used."""
    known = pl.read_parquet(_bytes(f"{folder}/texts.parquet"), columns=["row", "text"])
    fs, file = fsspec.core.url_to_fs(f"{folder}/vectors.npy")
    if isinstance(fs, LocalFileSystem):
        return known, np.load(file, mmap_mode="r", allow_pickle=False)
    return known, np.load(_bytes(f"{folder}/vectors.npy"), allow_pickle=False)


def _bytes(url: str) -> io.BytesIO:
    with fsspec.open(url, "rb") as file:
        return io.BytesIO(file.read())
