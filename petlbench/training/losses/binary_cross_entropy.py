"""Binary cross-entropy of each label: the loss of what has several labels an image; unknown ones are left out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petlbench.training.loss import Loss


def _compute(logits: Tensor, labels: Tensor, label_smoothing: float, positive_weights: Tensor | None) -> Tensor:
    """Mean over the known labels of a batch, a scalar in nats.

    Args:
        logits: (B, C).
        labels: 0, 1, or NaN for what is not known, (B, C).
        label_smoothing: Share of the target that is spread over both sides of each label.
        positive_weights: What the positive side of each label weighs beside its negative one, (C,), or None.
    """
    known = ~labels.isnan()
    targets = torch.where(known, labels, 0.0) * (1 - label_smoothing) + label_smoothing / 2
    losses = nn.functional.binary_cross_entropy_with_logits(
        logits, targets, pos_weight=positive_weights, reduction="none"
    )
    return torch.where(known, losses, 0.0).sum() / _known(labels)


def _known(labels: Tensor, positive_weights: Tensor | None = None) -> Tensor:
    """How many labels of a batch are known; 1 where none is, so that nothing is divided by zero."""
    return (~labels.isnan()).sum().clamp(min=1)


BINARY_CROSS_ENTROPY = Loss(
    name="binary_cross_entropy",
    title="Binary cross-entropy",
    compute=_compute,
    takes="labels",
    weight=_known,
    example=lambda images, labels: ((images, labels), torch.float32),
)
