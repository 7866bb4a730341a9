"""The usual way to train on questions: one question a row, its record before it, rows padded to the longest of their batch.

Needs torch and numpy alone, and shares no code with `ray_jobs.llemr.packing`, which it is compared to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

IGNORED = -100

Asked = tuple[np.ndarray, np.ndarray, np.ndarray]  # events of the record, question tokens, answer tokens


@dataclass
class Padded:
    """B questions of at most L positions; `events` [n] stand at the flattened positions `event_at`."""

    ids: torch.Tensor  # int64 [B, L]
    attention: torch.Tensor  # int64 [B, L], 0 where a row is padded
    labels: torch.Tensor  # int64 [B, L], IGNORED but on answers
    events: np.ndarray
    event_at: torch.Tensor

    @property
    def tokens(self) -> int:
        return int(self.attention.sum())


def pad(before: Sequence[int], asked: Sequence[Asked]) -> Padded:
    lengths = [len(before) + len(e) + len(q) + len(a) for e, q, a in asked]
    shape = len(asked), max(lengths)
    ids, attention = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels, event_at = torch.full(shape, IGNORED), []
    for row, (length, (events, question, answer)) in enumerate(zip(lengths, asked, strict=True)):
        ids[row, : len(before)] = torch.tensor(before)
        ids[row, length - len(question) - len(answer) : length] = torch.from_numpy(
            np.concatenate([question, answer]).astype(np.int64)
        )
        attention[row, :length] = 1
        labels[row, length - len(answer) : length] = ids[row, length - len(answer) : length]
        event_at.append(row * shape[1] + len(before) + torch.arange(len(events)))
    events = np.concatenate([events for events, _, _ in asked])
    return Padded(ids, attention, labels, events, torch.cat(event_at))


def losses(lm, projector, ids, attention, labels, features, event_at) -> torch.Tensor:
    """Cross-entropy of every position against the next label, [B, L - 1], 0 where it is not trained."""
    inputs = lm.get_input_embeddings()(ids)
    vectors = projector(features).to(inputs.dtype)
    inputs = inputs.flatten(0, 1).index_copy(0, event_at, vectors).view_as(inputs)
    logits = lm(inputs_embeds=inputs, attention_mask=attention, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.float().mT, labels[:, 1:], ignore_index=IGNORED, reduction="none")


class OneByOne(nn.Module):
    """The model as the Hugging Face Trainer calls it, a padded batch at a time."""

    accepts_loss_kwargs = True

    def __init__(self, model: nn.Module):
        """`model` has `lm` and `projector`, as `ray_jobs.llemr.model.Llemr`."""
        super().__init__()
        self.model = model

    def forward(self, ids, attention, labels, features, event_at, num_items_in_batch):
        loss = losses(self.model.lm, self.model.projector, ids, attention, labels, features, event_at)
        return {"loss": loss.sum() / num_items_in_batch}
