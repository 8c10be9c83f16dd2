"""What a loss is: a row of the catalogue, and how it is put to work in a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from petlbench.core.entry import Card, Kind
from petlbench.data.tasks.base import Scale


def _weight_of_classes(labels: Tensor, class_weights: Tensor | None) -> Tensor | float:
    return len(labels) if class_weights is None else class_weights[labels].sum()


@dataclass(frozen=True)
class Loss(Card):
    """A loss; ``training.loss`` is its name.

    Args:
        compute: From logits (B, C) in fp32, labels (B,), the label smoothing (the share of the target that is spread
            over all classes) and the weight of each class (C,), or None, to the mean over the batch, a scalar. It
            reads nothing back to the host. Where classes have weights, images weigh as theirs in the mean.
        takes: The form of the labels that it takes, as task types call it; ``class`` for one class an image.
        weight: From labels and the weights (C,), or None, to what they weigh together in the mean, so that
            micro-batches add up to their batch.
        example: From B and C to the shape and the kind of number of B labels.
    """

    kind: ClassVar[Kind] = "loss"

    compute: Callable[[Tensor, Tensor, float, Tensor | None], Tensor]
    takes: str = "class"
    weight: Callable[[Tensor, Tensor | None], Tensor | float] = _weight_of_classes
    example: Callable[[int, int], tuple[tuple[int, ...], torch.dtype]] = lambda images, classes: (
        (images,),
        torch.int64,
    )


@dataclass(frozen=True)
class Objective:
    """A loss with its settings.

    Args:
        loss: The loss.
        label_smoothing: Share of the target that is spread over all classes.
        class_weights: Weight of each class, (C,), or None.
        scale: What the module's outputs are in, where that is not the labels' own unit.
    """

    loss: Loss
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None
    scale: Scale | None = None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over a batch, a scalar, from logits (B, C) and labels (B,)."""
        labels = labels if self.scale is None else self.scale.to_outputs(labels)
        return self.loss.compute(logits.float(), labels, self.label_smoothing, self.class_weights)

    def exact(self, labels: Tensor) -> Callable[[Tensor], Tensor]:
        """The mean loss of logits (N, C) of images with these labels, (N,), computed in float64."""
        labels = labels if self.scale is None else self.scale.to_outputs(labels)
        wide = labels.double() if labels.is_floating_point() else labels
        weights = None if self.class_weights is None else self.class_weights.double()
        return lambda logits: self.loss.compute(logits.double(), wide, self.label_smoothing, weights)

    def share(self, labels: Tensor, whole: Tensor) -> Tensor | float:
        """The fraction that the mean over a micro-batch, labels (b,), makes of that over the whole batch, (B,).

        It is images over images, or weights over weights where classes have weights.
        """
        return self.loss.weight(labels, self.class_weights) / self.loss.weight(whole, self.class_weights)
