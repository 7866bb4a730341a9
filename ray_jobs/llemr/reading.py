"""Learning to read: a tiny language model, from scratch, on records in the dialect and questions about them.

Short records first: the number of events a record grows whenever the share of questions answered in full passes a mark, and
by the step count, so that the whole length is read in the end.
Every batch is a few records with all their questions, packed; many small steps learn more than few large ones.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ray_jobs.llemr.attention import PRODUCTS
from ray_jobs.llemr.data import EventStore, Questions
from ray_jobs.llemr.dialect import Dialect, scalars
from ray_jobs.llemr.model import logits_at, splice
from ray_jobs.llemr.muon import Muon
from ray_jobs.llemr.packing import Batch, pack
from ray_jobs.llemr.recipe import BaseModelRecipe
from ray_jobs.llemr.tokens import Features, places_of

GROWTH, PAUSE = 1.15, 10  # records grow by this factor, at most once in so many steps
STRETCH = 0.4, 0.85  # shares of the steps over which records grow to their full length whatever was learned
QUESTIONS_A_RECORD = 10
ROUNDED = 16  # in bf16 rows are multiples of this, as its kernels are compiled anew for every shape
WARMUP, COOLDOWN = 40, 0.35  # steps; share of the steps over which the rate falls to a fiftieth


def new_llama(recipe: BaseModelRecipe, tokenizer, seed: int) -> LlamaForCausalLM:
    """A small Llama with random weights, fixed by the seed."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.width,
            intermediate_size=recipe.mlp,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            initializer_range=0.05,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


class DialectEvents:
    """A store's events in the dialect: `vectors(embedding, indices)` is [n, width], with gradients to the embedding."""

    def __init__(self, dialect: Dialect, features: Features, store: EventStore):
        self.dialect = dialect
        self.text, self.unit = store.text, store.unit
        self.places = torch.from_numpy(places_of(store.value, store.digits, store.hours))
        self.scalars = torch.from_numpy(scalars(features, store))

    def vectors(self, embedding: torch.Tensor, events: np.ndarray) -> torch.Tensor:
        index = torch.from_numpy(events)
        return self.dialect.vectors(
            embedding, self.text[events], self.unit[events], self.places[index], self.scalars[index]
        )


@dataclass
class Shown:
    """What one step showed: mean loss a token, share of questions right in full, how many questions and tokens."""

    loss: float
    exact: float
    questions: int
    tokens: int


class Reader:
    """Trains `lm` for `recipe.steps`; `history` keeps (step, loss)."""

    def __init__(
        self, lm: nn.Module, events: DialectEvents, questions: Questions, before: list[int], recipe, seed: int
    ):
        self.lm, self.events, self.questions, self.before, self.recipe = lm, events, questions, before, recipe
        self.rng = np.random.default_rng([seed, 1])
        self.lengths = np.array([len(r) for r in questions.records])
        self.by_length = np.argsort(self.lengths, kind="stable")
        self.asked = questions.by_record()
        self.odds = np.cumsum(
            self._rarity()[self.by_length]
        )  # of drawing a record, added up from the shortest
        matrices = [
            p for n, p in lm.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n
        ]
        chosen = {id(p) for p in matrices}
        rest = [p for p in lm.parameters() if id(p) not in chosen]
        self.muon = Muon(matrices, lr=recipe.lr_matrices)
        self.adam = torch.optim.AdamW(rest, lr=recipe.lr_rest, betas=(0.9, 0.95), weight_decay=0.0)
        self.history: list[tuple[int, float]] = []

    def run(self, log: logging.Logger) -> dict[str, float]:
        """Train; returns metrics: loss, exact (share of questions in full, running mean), events a record at the end."""
        events, exact, loss, grown = self.recipe.start_events, 0.0, 0.0, 0
        questions = tokens = 0
        started = time.monotonic()
        bf16 = self.recipe.precision == "bf16"
        self.lm.set_attn_implementation(PRODUCTS if bf16 else "sdpa")
        for step in range(self.recipe.steps):
            rows = self._rows(events)
            batch = pack(self.before, rows, multiple=ROUNDED if bf16 else 1)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                now = self._learn(batch, rows, step)
            exact = now.exact if step == 0 else 0.95 * exact + 0.05 * now.exact
            loss = now.loss if step == 0 else 0.95 * loss + 0.05 * now.loss
            questions, tokens = questions + now.questions, tokens + now.tokens
            if exact > self.recipe.grow_at and step - grown >= PAUSE:
                events, grown = int(events * GROWTH) + 1, step
            events = min(max(events, self._least_events(step)), int(self.lengths.max()))
            if (step + 1) % 50 == 0 or step + 1 == self.recipe.steps:
                spent = time.monotonic() - started
                self.history.append((step + 1, loss))
                log.info(
                    "step %d of %d, %d events a record, loss %.3f, right in full %.2f, %.0f questions/s, "
                    "%.0f tokens/s, ETA %.0f s",
                    *(step + 1, self.recipe.steps, events, loss, exact, questions / spent, tokens / spent),
                    spent / (step + 1) * (self.recipe.steps - step - 1),
                )
        return {"loss": round(loss, 4), "exact": round(exact, 4), "events": events, "questions": questions}

    def _least_events(self, step: int) -> int:
        """Longest records of this step whatever was learned: from `start_events` to all of them, over the middle steps."""
        done = min(1.0, max(0.0, (step / self.recipe.steps - STRETCH[0]) / (STRETCH[1] - STRETCH[0])))
        start = self.recipe.start_events
        return int(start * (self.lengths.max() / start) ** done)

    def _rarity(self) -> np.ndarray:
        """float64 [records]: how rare the families of a record's questions are, to the power of `balance`, on average."""
        family = self.questions.frame["family"].rank("dense").to_numpy() - 1
        rare = np.bincount(family)[family].astype(np.float64) ** -self.recipe.balance
        return np.array([rare[asked].mean() if len(asked) else 0.0 for asked in self.asked])

    def _rows(self, events: int) -> list:
        """Random records of at most `events` events with their questions, until the batch has its tokens."""
        within = max(1, int(np.searchsorted(self.lengths[self.by_length], events, side="right")))
        rows, total = [], 0
        while total < self.recipe.batch_tokens:
            drawn = np.searchsorted(self.odds, self.rng.random() * self.odds[within - 1], side="right")
            record = int(self.by_length[min(int(drawn), within - 1)])
            asked = self.asked[record]
            if len(asked) > QUESTIONS_A_RECORD:
                asked = self.rng.choice(asked, QUESTIONS_A_RECORD, replace=False)
            pairs = [(self.questions.prompt[i], self.questions.answer[i]) for i in asked]
            seen = self.questions.records[record]
            if self.rng.random() < self.recipe.withheld:
                seen = seen[:0]
            rows.append((seen, pairs))
            total += len(seen) + sum(len(q) + len(a) for q, a in pairs)
        return rows

    def _learn(self, batch: Batch, rows: list, step: int) -> Shown:
        embedding = self.lm.get_input_embeddings().weight
        inputs = splice(
            F.embedding(batch.ids, embedding), batch.event_at, self.events.vectors(embedding, batch.events)
        )
        logits = logits_at(self.lm, batch, inputs)
        loss = F.cross_entropy(logits, batch.target)
        loss.backward()
        rate = self._rate(step)
        for optimizer, lr in ((self.muon, self.recipe.lr_matrices), (self.adam, self.recipe.lr_rest)):
            optimizer.param_groups[0]["lr"] = lr * rate
            optimizer.step()
            optimizer.zero_grad()
        wrong = (logits.detach().argmax(-1) != batch.target).numpy()
        answer = np.repeat(np.arange(sum(len(q) for _, q in rows)), [len(a) for _, q in rows for _, a in q])
        failed = np.bincount(answer[wrong], minlength=answer[-1] + 1) > 0
        return Shown(loss.item(), 1 - failed.mean(), len(failed), batch.tokens)

    def _rate(self, step: int) -> float:
        left = 1 - step / self.recipe.steps
        return min(1.0, (step + 1) / WARMUP) * min(1.0, left / COOLDOWN + 0.02)
