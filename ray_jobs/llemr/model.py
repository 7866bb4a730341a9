"""Llemr: a causal language model that reads events through a projector, one position an event.

The language model is any Hugging Face causal LM. The projector turns an event's features into one vector of the model's
width; the splice puts it where the placeholder stood. Loss is taken on answer tokens only, and the language model's head
is applied only where a token is trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache

from ray_jobs.llemr.packing import Batch

HIDDEN = 256


class Exact(nn.Linear):
    """A linear map whose product is taken in float32; its weights may be bf16."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return F.linear(values.float(), self.weight.float(), self.bias.float())


class Projector(nn.Module):
    """Event features float32 [n, features] -> [n, width]: a linear map and, beside it, one hidden layer.

    It computes in float32 whatever precision its weights have, so that hours and digits of an event are not rounded to the
    three digits of bf16. The linear map can say all that the dialect says about numbers; the hidden layer, zero at first, learns the rest.
    """

    def __init__(self, features: int, width: int, hidden: int = HIDDEN):
        super().__init__()
        self.linear = Exact(features, width)
        self.up = Exact(features, hidden)
        self.down = Exact(hidden, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        return self.linear(events) + self.down(F.gelu(self.up(events)))


class Llemr(nn.Module):
    """Language model and projector."""

    def __init__(self, lm: nn.Module, projector: Projector):
        super().__init__()
        self.lm = lm
        self.projector = projector

    def forward(self, batch: Batch, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits [m, vocabulary] at the trained positions, sum of their cross-entropies)."""
        logits = self.logits(batch, self.projector(features))
        return logits, F.cross_entropy(logits.float(), batch.target, reduction="sum")

    def logits(self, batch: Batch, vectors: torch.Tensor) -> torch.Tensor:
        """Logits [m, vocabulary] at `batch.target_at`, with `vectors` [n, width] spliced in at `batch.event_at`."""
        inputs = splice(self.lm.get_input_embeddings()(batch.ids), batch.event_at, vectors)
        return logits_at(self.lm, batch, inputs)

    def generate(
        self, prefixes: Sequence[torch.Tensor], prompts: Sequence[np.ndarray], end: int, limit: int
    ) -> list[list[int]]:
        """Greedy answers, as token ids without `end`; arguments as of `decode`."""
        answers: list[list[int]] = [[] for _ in prefixes]
        for step in self.decode(prefixes, prompts, end, limit):
            for row, token in step:
                answers[row].append(token)
        return answers

    @torch.inference_mode()
    def decode(
        self, prefixes: Sequence[torch.Tensor], prompts: Sequence[np.ndarray], end: int, limit: int
    ) -> Iterator[list[tuple[int, int]]]:
        """Greedy answers, token by token: yields (row, token id) of every row that has not reached `end`.

        Prefix: [p, width] vectors of a record; prompt: tokens after it; `limit`: the most tokens of an answer.
        All questions are decoded together; rows are padded on the left.
        """
        embed = self.lm.get_input_embeddings()
        rows = [
            torch.cat([prefix, embed(torch.from_numpy(prompt).long().to(prefix.device))])
            for prefix, prompt in zip(prefixes, prompts, strict=True)
        ]
        longest = max(len(r) for r in rows)
        inputs = torch.stack([F.pad(r, (0, 0, longest - len(r), 0)) for r in rows])
        mask = torch.stack([F.pad(r.new_ones(len(r), dtype=torch.long), (longest - len(r), 0)) for r in rows])
        open_rows = np.arange(len(rows))
        cache = DynamicCache(config=self.lm.config)
        position = (mask.cumsum(1) - 1).clamp(min=0)
        for _ in range(limit):
            hidden = self.lm.base_model(
                inputs_embeds=inputs,
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            token = self.lm.get_output_embeddings()(hidden).argmax(-1)
            keep = token != end
            open_rows = open_rows[keep.cpu().numpy()]
            if not len(open_rows):
                return
            yield list(zip(open_rows.tolist(), token[keep].tolist(), strict=True))
            if not keep.all():
                cache.batch_select_indices(keep.nonzero()[:, 0])
                mask, position, token = mask[keep], position[keep], token[keep]
            inputs = embed(token)[:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            position = position[:, -1:] + 1


def logits_at(lm: nn.Module, batch: Batch, inputs: torch.Tensor) -> torch.Tensor:
    """Logits [m, vocabulary] at `batch.target_at` of the language model that reads `inputs` [B, L, width].

    The head runs at those positions alone, and so does the last layer's MLP, whose other outputs nothing reads.
    """
    flex = lm.config._attn_implementation == "flex_attention"
    with last_mlp_at_targets(lm, batch):
        hidden = lm.base_model(
            inputs_embeds=inputs,
            attention_mask=batch.block_mask() if flex else batch.mask(),
            position_ids=batch.position,
            use_cache=False,
        ).last_hidden_state
    return lm.get_output_embeddings()(hidden.flatten(0, 1)[batch.target_at])


@contextlib.contextmanager
def last_mlp_at_targets(lm: nn.Module, batch: Batch) -> Iterator[None]:
    """Within it, the last layer's gated MLP computes the trained positions alone and gives 0 elsewhere.

    With gradient checkpointing, which computes a layer again outside of it, and with other kinds of MLP nothing changes.
    """
    layers = {} if lm.is_activation_checkpointing else dict(lm.named_modules())
    mlps = [m for name, m in layers.items() if name.endswith(".mlp") and hasattr(m, "gate_proj")]

    def narrow(_, given: tuple[torch.Tensor]) -> torch.Tensor:
        return given[0].flatten(0, 1)[batch.target_at]

    def widen(_, given: tuple, found: torch.Tensor) -> torch.Tensor:
        everywhere = found.new_zeros(batch.ids.numel(), found.shape[-1])
        return everywhere.index_copy(0, batch.target_at, found).view(*batch.ids.shape, -1)

    hooks = [
        hook
        for mlp in mlps[-1:]
        for hook in (mlp.register_forward_pre_hook(narrow), mlp.register_forward_hook(widen))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def splice(inputs: torch.Tensor, at: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """[B, L, width] with `vectors` [n, width] at the flattened positions `at` [n]."""
    flat = inputs.flatten(0, 1).index_copy(0, at, vectors.to(inputs.dtype))
    return flat.view_as(inputs)
