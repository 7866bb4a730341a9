"""The guard of a training's loss: one that is no number, or stays far above the usual, ends the training by its name."""

from __future__ import annotations

import math
from dataclasses import dataclass

SPIKE, PATIENCE = 3.0, 8  # a loss of so many times the usual, so many steps in a row, ends the training
USUAL_STEPS = 20  # steps over which the usual loss is averaged


class LossWentWrong(RuntimeError):
    """The loss is not a number or stays far above the usual; another try would go the same way."""


@dataclass
class Guard:
    """What is usual, learned from losses that are not high themselves: a plateau of high ones never becomes usual.

    The first PATIENCE losses say what is usual by their mean. A checkpoint keeps the fields, so that a resumed training is
    judged as one that was not stopped.
    """

    usual: float = 0.0
    seen: int = 0  # losses that told what is usual
    high: int = 0  # of these last steps, in a row

    def see(self, loss: float) -> None:
        """Raises LossWentWrong if `loss` is no number, or is the PATIENCE-th high one in a row."""
        is_high = self.seen >= PATIENCE and loss > SPIKE * self.usual
        self.high = self.high + 1 if is_high else 0
        if not math.isfinite(loss) or self.high == PATIENCE:
            raise LossWentWrong(f"loss {loss:.3g}, usual was {self.usual:.3g}")
        if not is_high:
            self.seen += 1
            self.usual += (loss - self.usual) / min(self.seen, USUAL_STEPS)
