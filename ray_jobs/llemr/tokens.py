"""What the projector sees of one event: frozen text embedding, kind, unit, time, and the number digit by digit.

A single embedding of "glucose in mg/dl: 142" does not hold its 142; here the number stands beside the text: each printed
character by its place, the standardised value, its place in the concept's reference range (what a laboratory's flag says),
the change since the value before, its signed logarithm and a missing bit. Time is hours since admission in
float32 as printed characters and as sine and cosine over decades of periods. Blocks are scaled to each other, so that
none drowns the rest. All of this is indexed arrays: nothing is parsed in the loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ray_jobs.llemr.data import BLANK, HOUR_PLACES, VALUE_PLACES, EventStore, printed

V1_SCALARS = ("hours", "number", "duration")
PERIODS_H = np.array([0.25, 1, 4, 12, 24, 72, 168, 720, 8760], np.float64)  # a quarter of an hour to a year
TEXT_SCALE = 3.0  # a normalised text vector of length 3 beside one-hot places of length about 3 together


@dataclass
class Features:
    """How events become numbers; saved beside the weights (`events.json`), so that a reload sees them the same way.

    kinds, units: what the model was trained on, in order; anything else at inference is "other" (the last column).
    scales: text -> (mean, standard deviation) of its values in the train split.
    """

    kinds: list[str]
    units: list[str]
    scales: dict[str, tuple[float, float]]
    text_width: int
    token: str = "wardline"  # or "v1": what Llemr's released version reads of an event, to compare with

    @classmethod
    def fit(cls, store: EventStore, visits: np.ndarray, text_width: int, token: str = "wardline") -> Features:
        """Fit on the events of the given visits (those of the train split)."""
        seen = np.concatenate([np.arange(store.start[v], store.start[v + 1]) for v in visits])
        text, value = store.text[seen], store.value[seen]
        known = ~np.isnan(value)
        count = np.bincount(text[known], minlength=len(store.texts))
        total = np.bincount(text[known], value[known], minlength=len(store.texts))
        mean = total / np.maximum(count, 1)
        square = np.bincount(text[known], (value[known] - mean[text[known]]) ** 2, minlength=len(store.texts))
        spread = np.sqrt(square / np.maximum(count, 1))
        used = np.flatnonzero((count >= 5) & (spread > 0))
        return cls(
            kinds=[store.kinds[k] for k in np.unique(store.kind[seen])],
            units=[store.units[u] for u in np.unique(store.unit[seen])],
            scales={store.texts[t]: (float(mean[t]), float(spread[t])) for t in used},
            text_width=text_width,
            token=token,
        )

    @property
    def width(self) -> int:
        if self.token == "v1":
            return self.text_width + len(V1_SCALARS)
        places = (VALUE_PLACES + HOUR_PLACES) * BLANK
        return self.text_width + len(self.kinds) + len(self.units) + 2 + places + 6 + 2 * len(PERIODS_H)

    def texts_of(self, store: EventStore) -> list[str]:
        """The texts whose vectors these features are made of, each once."""
        return with_values(store)[0] if self.token == "v1" else store.texts

    def standardised(self, store: EventStore) -> np.ndarray:
        """Values in standard deviations of their own text's train values, clipped to 4; 0 where unknown. float64 [n]."""
        scale = np.array([self.scales.get(t, (np.nan, 1.0)) for t in store.texts] or [(np.nan, 1.0)])
        z = (store.value - scale[store.text, 0]) / scale[store.text, 1]
        return np.nan_to_num(np.clip(z, -4, 4))

    def change(self, store: EventStore) -> np.ndarray:
        """Change since the value before: signed root of standard deviations, so that small steps show. float64 [n]."""
        spread = np.array([self.scales.get(t, (0.0, np.nan))[1] for t in store.texts] or [np.nan])
        step = (store.value - store.previous) / spread[store.text]
        return np.nan_to_num(np.clip(np.sign(step) * np.sqrt(np.abs(step)), -2, 2))


def event_features(
    features: Features, store: EventStore, text_vectors: np.ndarray
) -> EventFeatures | V1Features:
    """The features of one store; `text_vectors`: float [n, text_width], the frozen encoder's, for `features.texts_of`."""
    return (V1Features if features.token == "v1" else EventFeatures)(features, store, text_vectors)


class EventFeatures:
    """The features of one store, ready to be indexed: `features[indices]` is float32 [n, width], on their device.

    What is one-hot (kind, unit, each printed character) is kept as the column of its 1, and an empty place as the
    column of the kind, whose 1 stands there anyway. The text's vector lies in a row of full width. So a gather copies
    rows, fills in ones and copies numbers.
    """

    def __init__(self, features: Features, store: EventStore, text_vectors: np.ndarray):
        """`text_vectors`: float [len(store.texts), text_width], the frozen encoder's, in the order of `store.texts`."""
        self.width, self.text_width = features.width, text_vectors.shape[1]
        length = np.linalg.norm(text_vectors, axis=1, keepdims=True)
        table = np.zeros((len(store.texts), self.width), np.float32)
        texts = table[:, : self.text_width]  # filled in place: the table may be large
        np.divide(text_vectors, np.maximum(length, 1e-6), out=texts, casting="same_kind")
        texts *= TEXT_SCALE
        self.table = torch.from_numpy(table)
        self.text = torch.from_numpy(store.text)
        kind = self.text_width + _positions(store.kinds, features.kinds)[store.kind]
        first_unit = self.text_width + len(features.kinds) + 1
        unit = first_unit + _positions(store.units, features.units)[store.unit]
        places = places_of(store.value, store.digits, store.hours).astype(np.int64)
        first_place = first_unit + len(features.units) + 1
        columns = first_place + BLANK * np.arange(places.shape[1]) + places
        columns = np.where(places == BLANK, kind[:, None], columns)
        self.columns = torch.from_numpy(np.column_stack([kind, unit, columns]).astype(np.int16))
        self.z = features.standardised(store).astype(np.float32)
        self.numbers = torch.from_numpy(_numbers(store, self.z, features.change(store)))

    def to(self, device: torch.device | str) -> EventFeatures:
        """Move the tables, so that a batch is gathered where the model is."""
        for name, table in vars(self).items():
            if isinstance(table, torch.Tensor):
                setattr(self, name, table.to(device))
        return self

    def __getitem__(self, events: np.ndarray) -> torch.Tensor:
        index = torch.from_numpy(np.asarray(events, np.int64)).to(self.text.device)
        gathered = self.table.index_select(0, self.text[index])
        rows = torch.arange(len(index), device=index.device)[:, None] * self.width
        gathered.view(-1).index_fill_(0, (self.columns[index] + rows).flatten(), 1.0)
        gathered[:, -self.numbers.shape[1] :] = self.numbers[index]
        return gathered


class V1Features:
    """An event as Llemr v1 reads it: the vector of its text with the number in it, then three bare scalars.

    Hours, the text's number (0 where there is none) and a duration, as they are: not standardised, without a missing bit. How
    long an event lasts is not in the store, so the duration is 0.
    """

    def __init__(self, features: Features, store: EventStore, text_vectors: np.ndarray):
        _, text = with_values(store)
        self.text = torch.from_numpy(text)
        self.table = torch.from_numpy(text_vectors.astype(np.float32))
        columns = [store.hours, np.nan_to_num(store.value), np.zeros(len(text))]
        self.numbers = torch.from_numpy(np.column_stack(columns).astype(np.float32))

    def to(self, device: torch.device | str) -> V1Features:
        self.text, self.table, self.numbers = (t.to(device) for t in (self.text, self.table, self.numbers))
        return self

    def __getitem__(self, events: np.ndarray) -> torch.Tensor:
        index = torch.from_numpy(np.asarray(events, np.int64)).to(self.text.device)
        return torch.cat([self.table[self.text[index]], self.numbers[index]], dim=1)


def with_values(store: EventStore) -> tuple[list[str], np.ndarray]:
    """Texts with their number inside, as Llemr v1 embeds them: (each distinct one, int32 [events] which one it is)."""
    said = [
        store.texts[t] if np.isnan(v) else f"{store.texts[t]}: {v:.{d}f}"
        for t, v, d in zip(store.text, store.value, store.digits, strict=True)
    ]
    texts, index = np.unique(np.array(said or [""]), return_inverse=True)
    return texts.tolist(), index[: len(said)].astype(np.int32)


def places_of(value: np.ndarray, digits: np.ndarray, hours: np.ndarray) -> np.ndarray:
    """Printed characters of value and hour by place: uint8 [n, VALUE_PLACES + HOUR_PLACES]."""
    tenths = np.ones(len(hours), np.int8)
    return np.concatenate([printed(value, digits, VALUE_PLACES), printed(hours, tenths, HOUR_PLACES)], axis=1)


def log_hours(hours: np.ndarray) -> np.ndarray:
    return np.sign(hours) * np.log1p(np.abs(hours)) / 2


def _numbers(store: EventStore, z: np.ndarray, change: np.ndarray) -> np.ndarray:
    missing = np.isnan(store.value)
    value = np.where(missing, 0.0, store.value)
    angle = 2 * np.pi * store.hours[:, None] / PERIODS_H
    columns = [
        z,
        store.reference,
        change,
        log_hours(store.hours),
        np.sign(value) * np.log1p(np.abs(value)) / 3,
        missing,
    ]
    return np.concatenate([np.stack(columns, axis=1), np.sin(angle), np.cos(angle)], axis=1).astype(
        np.float32
    )


def _positions(names: list[str], known: list[str]) -> np.ndarray:
    order = {name: i for i, name in enumerate(known)}
    return np.array([order.get(name, len(known)) for name in names] or [0], np.int64)
