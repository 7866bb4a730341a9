"""The dialect that base model and projector share: an event as one vector made of the model's own token embeddings.

    vector = sum over roles of sign[role] * embedding[token in that role]

Roles are: a word of the text, the unit, each printed character of the value by its place, each printed character of the
hour by its place. `sign[role]` is a fixed random vector of +1 and -1, so that what was said in which role can be read
back by a linear map. Rare words count more than words that stand in most texts. Four scalars, the standardised value, its
place in the reference range, its change since the value before and the hour, are added along fixed random directions. A base model that has read such records can read a projector's tokens
as soon as the projector speaks the same way.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F

from ray_jobs.llemr.data import HOUR_PLACES, VALUE_PLACES, EventStore
from ray_jobs.llemr.tokenizer import DIGITS
from ray_jobs.llemr.tokens import Features, log_hours

SCALARS = 4
SCALE = 0.05  # length of the scalar directions, about one token embedding
WORDS = 2.2  # length of all words of a text together, in token embeddings


class Dialect:
    """Event vectors over a list of texts and one of units; `seed` and `width` fix the signs.

    rarity: token id -> weight of a word, from `word_rarity` of the train split's texts; saved with the weights.
    """

    def __init__(
        self, tokenizer, texts: list[str], units: list[str], width: int, seed: int, rarity: dict[int, float]
    ):
        generator = torch.Generator().manual_seed(seed)
        roles = 2 + VALUE_PLACES + HOUR_PLACES + SCALARS
        signs = torch.randint(0, 2, (roles, width), generator=generator).float() * 2 - 1
        self.word, self.unit = signs[0], signs[1]
        self.places = signs[2:-SCALARS]
        self.directions = signs[-SCALARS:] * SCALE
        self.words = [_weighted(ids, rarity) for ids in _tokens(tokenizer, texts)]
        self.units = [(ids, torch.ones(len(ids))) for ids in map(torch.tensor, _tokens(tokenizer, units))]
        self.characters = torch.tensor(tokenizer.convert_tokens_to_ids(DIGITS))

    def vectors(self, embedding: torch.Tensor, text, unit, places, scalars) -> torch.Tensor:
        """[n, width] from token embeddings [vocabulary, width]; text, unit int [n]; places int [n, 13]; scalars [n, 4]."""
        said = _sum(self.words, text, embedding) * self.word + _sum(self.units, unit, embedding) * self.unit
        table = torch.cat([embedding[self.characters], embedding.new_zeros(1, embedding.shape[1])])
        table = table[:, None, :] * self.places  # [characters, places, width]
        flat = torch.arange(places.shape[1]) + places.long() * places.shape[1]
        return said + F.embedding_bag(flat, table.flatten(0, 1), mode="sum") + scalars @ self.directions


def word_rarity(tokenizer, texts: list[str]) -> dict[int, float]:
    """Logarithm of one over the share of texts that hold the word, by token id."""
    counts = Counter(word for ids in _tokens(tokenizer, texts) for word in set(ids))
    return {word: float(np.log((1 + len(texts)) / count)) for word, count in counts.items()}


def scalars(features: Features, store: EventStore) -> np.ndarray:
    """[n, 4] float32: value in deviations, place in the reference range, change since the value before, log of the hour.

    All are of the order of 1, and 0 where there is no number.
    """
    columns = [features.standardised(store), store.reference, features.change(store), log_hours(store.hours)]
    return np.stack(columns, axis=1).astype(np.float32)


def _weighted(ids: list[int], rarity: dict[int, float]) -> tuple[torch.Tensor, torch.Tensor]:
    unseen = max(rarity.values(), default=1.0)
    weights = torch.tensor([rarity.get(i, unseen) for i in ids])
    return torch.tensor(ids, dtype=torch.long), WORDS * weights / weights.norm().clamp(min=1e-6)


def _sum(bags: list[tuple[torch.Tensor, torch.Tensor]], rows, embedding: torch.Tensor) -> torch.Tensor:
    """Weighted sum of the token embeddings of each row's bag: [n, width]."""
    chosen = [bags[r] for r in rows.tolist()]
    offsets = torch.tensor([0, *(len(ids) for ids, _ in chosen)]).cumsum(0)[:-1]
    ids, weights = torch.cat([c[0] for c in chosen]).long(), torch.cat([c[1] for c in chosen])
    return F.embedding_bag(ids, embedding, offsets, mode="sum", per_sample_weights=weights)


def _tokens(tokenizer, texts: list[str]) -> list[list[int]]:
    return tokenizer([text.lower() for text in texts], add_special_tokens=False)["input_ids"]
