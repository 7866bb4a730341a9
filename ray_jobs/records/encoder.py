"""A frozen language model that turns texts into vectors: any Hugging Face encoder or decoder from a local folder.

The instruction of a task stands before the record or after it. After it, and with a causal model that pools its last token,
the record is read once and its keys and values serve every task's instruction (`Encoder.shared`); that this gives the same
vectors is a property of causal attention, so whether a model is causal is tried, not believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ray_jobs.config import JobError
from ray_jobs.embed_events import batches, encoder_folder, files_sha

if TYPE_CHECKING:
    import torch

JOIN = "\n"
Asked = tuple[str, str]  # a record and an instruction


@dataclass(frozen=True)
class Settings:
    """What an encoder is told, by its YAML; a value that is not among the choices is a JobError.

    model: `minilm` or the absolute path of a local folder; pooling: `mean` or `last`; instruction: `first`, `last` or `none`;
    context: tokens that one text may have, by default what the model was made for; precision: `fp32` or `bf16`, by default
    fp32 on a CPU (few multiply bf16, which is then twice as fast) and bf16 on a GPU.
    """

    model: str = "minilm"
    pooling: str = "mean"
    instruction: str = "first"
    context: int | None = None
    precision: str | None = None
    tokens_per_batch: int = 2048

    def __post_init__(self):
        choices_of = {
            "pooling": ("mean", "last"), "instruction": ("first", "last", "none"), "precision": (None, "fp32", "bf16"),
        }  # fmt: skip
        for key, choices in choices_of.items():
            if getattr(self, key) not in choices:
                raise JobError(
                    f"params.{key}: {getattr(self, key)!r}; write one of {', '.join(filter(None, choices))}"
                )


class Encoder:
    """Loaded model and tokenizer. Raises JobError if there is no such local model."""

    def __init__(self, settings: Settings, threads: int | None = None):
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        if threads:
            torch.set_num_threads(threads)
        folder = encoder_folder(settings.model)
        self.settings, self.device = settings, "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        precision = settings.precision or ("fp32" if self.device == "cpu" else "bf16")
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype)
        self.model = model.to(self.device).eval()
        made_for = getattr(self.model.config, "max_position_embeddings", None)
        self.context = min(c for c in (settings.context, made_for, self.tokenizer.model_max_length) if c)
        self.dimensions = self.model.config.hidden_size
        self.before, self.after = self._markers()
        self.sha = hashlib.sha256(
            f"{files_sha(folder)} {settings.pooling} {settings.instruction} {self.context} {dtype}".encode()
        ).hexdigest()

    def tokens(self, text: str) -> int:
        """How many tokens a piece of text is, without markers."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def check_budget(self, budget: int, instructions: Sequence[str]) -> None:
        """Raises JobError if a record of `budget` tokens does not fit with the longest instruction and the markers."""
        extra = len(self.before) + len(self.after)
        extra += max(
            (self.tokens(i) + 1 for i in instructions if self.settings.instruction != "none"), default=0
        )
        if budget + extra > self.context:
            raise JobError(
                f"params.budget: {budget} tokens and {extra} of instruction and markers, but {self.settings.model} reads "
                f"{self.context}; write at most {self.context - extra}"
            )

    def embed(self, asked: Sequence[Asked]) -> np.ndarray:
        """float16 [n, dimensions], of length 1, in the order of `asked`; sorted by length into batches of at most
        `tokens_per_batch` tokens, padding included."""
        ids = [self.ids(*one) for one in asked]
        vectors = np.empty((len(ids), self.dimensions), np.float16)
        for rows in batches([len(i) for i in ids], self.settings.tokens_per_batch):
            vectors[rows] = self.batch([ids[row] for row in rows])
        return vectors

    def ids(self, record: str, instruction: str) -> list[int]:
        """Token ids of one input. Record and instruction are tokenized apart, so that a record has the same tokens under
        every instruction; what exceeds the context is cut from the record's end."""
        head, tail = self.before, self.after
        if self.settings.instruction == "first":
            head = head + self._plain(instruction + JOIN)
        elif self.settings.instruction == "last":
            tail = self._plain(JOIN + instruction) + tail
        return head + self._plain(record)[: self.context - len(head) - len(tail)] + tail

    def batch(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """float16 [n, dimensions] of token ids, padded on the right to the longest."""
        import torch

        longest = max(map(len, ids))
        padded = torch.zeros(len(ids), longest, dtype=torch.long)
        mask = torch.zeros_like(padded)
        for row, mine in enumerate(ids):
            padded[row, : len(mine)], mask[row, : len(mine)] = torch.tensor(mine), 1
        padded, mask = padded.to(self.device), mask.to(self.device)
        with torch.inference_mode():
            states = self.model(input_ids=padded, attention_mask=mask).last_hidden_state
            return self._pooled(states, mask)

    def shared(self, record: str, instructions: Sequence[str]) -> np.ndarray:
        """Vectors of a record under every instruction, float16 [instructions, dimensions]: the record goes through the
        model once, the instructions after it. See `check_shared`."""
        tails = [self._plain(JOIN + instruction) + self.after for instruction in instructions]
        room = self.context - len(self.before) - max(map(len, tails))
        return self._after(self.before + self._plain(record)[:room], tails)

    def check_shared(self) -> None:
        """Raises JobError if the model is not causal, or its settings are not `last` and `last`."""
        if (self.settings.pooling, self.settings.instruction) != ("last", "last") or not self.is_causal():
            raise JobError(
                "params.shared_prefix: needs a causal model with pooling: last and instruction: last; leave it out"
            )

    def is_causal(self) -> bool:
        """Whether a later token leaves the states before it as they are."""
        import torch

        some = torch.tensor([[5, 6, 7], [5, 6, 8]], device=self.device)
        with torch.inference_mode():
            states = self.model(input_ids=some).last_hidden_state
        return torch.allclose(states[0, :2], states[1, :2], atol=1e-6)

    def _after(self, head: list[int], tails: Sequence[list[int]]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            cache = self.model(
                input_ids=torch.tensor([head], device=self.device), use_cache=True
            ).past_key_values
            cache.batch_repeat_interleave(len(tails))
            longest = max(map(len, tails))
            ids = torch.zeros(len(tails), longest, dtype=torch.long)
            mask = torch.zeros(len(tails), len(head) + longest, dtype=torch.long)
            for row, tail in enumerate(tails):
                ids[row, : len(tail)], mask[row, : len(head) + len(tail)] = torch.tensor(tail), 1
            ids, mask = ids.to(self.device), mask.to(self.device)
            states = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache).last_hidden_state
            return self._pooled(states, mask[:, len(head) :])

    def _pooled(self, states: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        import torch

        states = states.float()
        if self.settings.pooling == "mean":
            weights = mask.unsqueeze(-1)
            pooled = (states * weights).sum(1) / weights.sum(1)
        else:
            pooled = states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
        return torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy().astype(np.float16)

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def _markers(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a text."""
        plain, marked = self._plain("a"), self.tokenizer("a")["input_ids"]
        at = next(i for i in range(len(marked)) if marked[i : i + len(plain)] == plain)
        return marked[:at], marked[at + len(plain) :]
