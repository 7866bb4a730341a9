"""Answers: questions in, short texts out, by batched greedy decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import torch

from ray_jobs.config import JobError
from ray_jobs.llemr.checkpoint import Weights
from ray_jobs.llemr.data import EventStore, Questions, questions_of
from ray_jobs.llemr.packing import pack
from ray_jobs.llemr.tokenizer import prompt_parts
from ray_jobs.llemr.tokens import EventFeatures, V1Features, event_features

LONGEST_ANSWER = 24  # tokens
UNFINISHED = "\ufffd"  # how a tokenizer decodes a character of which bytes are missing
CONTROLS = (None, "withheld", "shuffled")


class Answerer:
    """Weights with their own tokenizer and event features, on the GPU if there is one."""

    def __init__(self, weights: Weights):
        self.weights = weights
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = weights.model().eval().to(self.device)
        self.parts = prompt_parts(weights.tokenizer)

    def answer(
        self,
        questions: pl.DataFrame,
        events: EventStore,
        vectors: np.ndarray,
        control: str | None = None,
        swap: Sequence[tuple[str, str, object]] | None = None,
        batch: int = 128,
    ) -> list[str]:
        """One text a question, in their order.

        questions: columns hospital, visit_id, cutoff_at, question. vectors: `data.text_vectors` for `features.texts_of(events)`.
        control: None, 'withheld' (no events at all) or 'shuffled' (in a random order; each says its own hour). swap: the
        (hospital, visit_id, cutoff_at) to be read in place of each question's own. Questions are sorted by length, so that a batch is hardly padded.
        """
        if control not in CONTROLS:
            raise ValueError(
                f"control is {control!r}; it is one of {CONTROLS}, and swaps are given by `swap`"
            )
        if questions.is_empty():
            return []
        frame = questions
        if swap is not None:
            frame = frame.with_columns(
                pl.Series(name, [s[i] for s in swap], dtype=frame.schema[name])
                for i, name in enumerate(("hospital", "visit_id", "cutoff_at"))
            )
        asked, tokenizer = self.asked(frame, events), self.weights.tokenizer
        features = event_features(self.weights.features, events, vectors)
        records = asked.records
        if control == "withheld":
            records = [record[:0] for record in records]
        elif control == "shuffled":
            rng = np.random.default_rng(0)
            records = [rng.permutation(record) for record in records]
        lengths = np.array(
            [len(records[r]) + len(p) for r, p in zip(asked.record, asked.prompt, strict=True)]
        )
        answers = [""] * len(asked)
        for rows in np.array_split(np.argsort(lengths, kind="stable"), -(-len(asked) // batch)):
            prefixes = self._prefixes([records[asked.record[i]] for i in rows], features)
            said = self.model.generate(
                prefixes, [asked.prompt[i] for i in rows], tokenizer.eos_token_id, LONGEST_ANSWER
            )
            for row, ids in zip(rows, said, strict=True):
                answers[row] = tokenizer.decode(ids, skip_special_tokens=True).strip()
        return answers

    def asked(self, questions: pl.DataFrame, events: EventStore) -> Questions:
        """Questions as this model reads them: its tokens, and the events of each record that are in view."""
        frame = questions.select("hospital", "visit_id", "cutoff_at", "question").with_columns(
            says=pl.lit("")
        )
        budget = int(self.weights.settings["event_budget"])
        return questions_of(frame, events, self.weights.tokenizer, self.parts, budget)

    def stream(
        self, asked: Questions, events: EventStore, vectors: np.ndarray, limit: int = LONGEST_ANSWER
    ) -> Iterator[str]:
        """The answer to the first question as it grows: for every token what it adds to the text, which may be nothing.

        Together the pieces are what `answer` says. A character whose bytes are not all there yet waits for them.
        """
        features = event_features(self.weights.features, events, vectors)
        prefixes = self._prefixes([asked.records[asked.record[0]]], features)
        tokenizer, ids, said = self.weights.tokenizer, [], ""
        for ((_, token),) in self.model.decode(prefixes, asked.prompt[:1], tokenizer.eos_token_id, limit):
            ids.append(token)
            text = tokenizer.decode(ids, skip_special_tokens=True).strip()
            whole = text.startswith(said) and not text.endswith(UNFINISHED)
            yield text[len(said) :] if whole else ""
            said = text if whole else said

    @torch.inference_mode()
    def odds(
        self, questions: pl.DataFrame, events: EventStore, vectors: np.ndarray, batch: int = 32
    ) -> np.ndarray:
        """Logarithm of the odds of yes against no, before any calibration: float64 [n].

        It is the difference of the two logits at the first position of the answer. Arguments as of `answer`. All questions
        of a record stand side by side and read it once; `batch` counts records.
        """
        yes, no = self._yes_and_no()
        asked = self.asked(questions, events)
        features = event_features(self.weights.features, events, vectors)
        by_record, said = asked.by_record(), np.empty(len(asked))
        lengths = np.array([len(r) for r in asked.records])
        one = np.array([yes], np.int32)
        for records in np.array_split(np.argsort(lengths, kind="stable"), -(-len(lengths) // batch)):
            units = [(asked.records[r], [(asked.prompt[i], one) for i in by_record[r]]) for r in records]
            packed = pack(self.parts[0], units).to(self.device)
            seen = self.model.projector(features[packed.events].to(self.device))
            logits = self.model.logits(packed, seen).float().cpu()
            said[np.concatenate([by_record[r] for r in records])] = (logits[:, yes] - logits[:, no]).numpy()
        return said

    def _yes_and_no(self) -> tuple[int, int]:
        """First tokens of both answers. Raises JobError if the tokenizer does not tell them apart."""
        ids = [
            tokens[0]
            for tokens in self.weights.tokenizer(["yes", "no"], add_special_tokens=False)["input_ids"]
        ]
        if ids[0] == ids[1]:
            raise JobError(
                "the tokenizer begins yes and no with one token; take a model that tells them apart"
            )
        return ids[0], ids[1]

    @torch.inference_mode()
    def _prefixes(
        self, records: list[np.ndarray], features: EventFeatures | V1Features
    ) -> list[torch.Tensor]:
        """What stands before each question, as vectors [p, width]: the template's own tokens, then the events."""
        embed = self.model.lm.get_input_embeddings()
        before = embed(torch.tensor(self.parts[0], dtype=torch.long, device=self.device))
        vectors = self.model.projector(features[np.concatenate(records).astype(np.int64)].to(self.device))
        pieces = vectors.to(before.dtype).split([len(r) for r in records])
        return [torch.cat([before, piece]) for piece in pieces]
