"""What a loss is: a row of the catalogue, and how it is put to work in a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from petlbench.core.entry import Card, Kind

__all__ = ["Loss", "Objective"]


@dataclass(frozen=True)
class Loss(Card):
    """A loss; ``training.loss`` is its name.

    Args:
        compute: From logits (B, C) in fp32, labels (B,), the label smoothing (the share of the target that is spread
            over all classes) and the weight of each class (C,), or None, to the mean over the batch, a scalar. It
            reads nothing back to the host. Where classes have weights, images weigh as theirs in the mean.
    """

    kind: ClassVar[Kind] = "loss"

    compute: Callable[[Tensor, Tensor, float, Tensor | None], Tensor]


@dataclass(frozen=True)
class Objective:
    """A loss with its settings.

    Args:
        loss: The loss.
        label_smoothing: Share of the target that is spread over all classes.
        class_weights: Weight of each class, (C,), or None.
    """

    loss: Loss
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over a batch, a scalar, from logits (B, C) and labels (B,)."""
        return self.loss.compute(logits.float(), labels, self.label_smoothing, self.class_weights)

    def share(self, labels: Tensor, whole: Tensor) -> Tensor | float:
        """The fraction that the mean over a micro-batch, labels (b,), makes of that over the whole batch, (B,).

        It is images over images, or weights over weights where classes have weights.
        """
        if self.class_weights is None:
            return len(labels) / len(whole)
        return self.class_weights[labels].sum() / self.class_weights[whole].sum()
