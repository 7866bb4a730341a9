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

    @classmethod
    def fit(cls, store: EventStore, visits: np.ndarray, text_width: int) -> Features:
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
        )

    @property
    def width(self) -> int:
        places = (VALUE_PLACES + HOUR_PLACES) * BLANK
        return self.text_width + len(self.kinds) + len(self.units) + 2 + places + 6 + 2 * len(PERIODS_H)

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


class EventFeatures:
    """The features of one store, ready to be indexed: `features[indices]` is float32 [n, width]."""

    def __init__(self, features: Features, store: EventStore, text_vectors: np.ndarray):
        """`text_vectors`: float [len(store.texts), text_width], the frozen encoder's, in the order of `store.texts`."""
        length = np.linalg.norm(text_vectors, axis=1, keepdims=True)
        self.text_vectors = torch.from_numpy(
            (text_vectors / np.maximum(length, 1e-6) * TEXT_SCALE).astype(np.float32)
        )
        self.text = torch.from_numpy(store.text.astype(np.int64))
        kind = _positions(store.kinds, features.kinds)[store.kind]
        unit = _positions(store.units, features.units)[store.unit]
        self.codes = torch.from_numpy(np.stack([kind, unit + len(features.kinds) + 1], axis=1))
        self.code_width = len(features.kinds) + len(features.units) + 2
        self.places = torch.from_numpy(places_of(store.value, store.digits, store.hours))
        self.z = features.standardised(store).astype(np.float32)
        self.numbers = torch.from_numpy(_numbers(store, self.z, features.change(store)))

    def __getitem__(self, events: np.ndarray) -> torch.Tensor:
        index = torch.from_numpy(np.asarray(events, np.int64))
        codes = torch.zeros(len(index), self.code_width).scatter_(1, self.codes[index], 1.0)
        places = (
            torch.nn.functional.one_hot(self.places[index].long(), BLANK + 1)[..., :BLANK].flatten(1).float()
        )
        return torch.cat([self.text_vectors[self.text[index]], codes, places, self.numbers[index]], dim=1)


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
