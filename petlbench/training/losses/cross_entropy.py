"""Cross-entropy: the loss of what has one class an image."""

from __future__ import annotations

from torch import Tensor, nn

from petlbench.training.loss import Loss


def _compute(logits: Tensor, labels: Tensor, label_smoothing: float, class_weights: Tensor | None) -> Tensor:
    """Mean cross-entropy, a scalar in nats, of logits (B, C) and labels (B,)."""
    return nn.functional.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing)


CROSS_ENTROPY = Loss(name="cross_entropy", title="Cross-entropy", compute=_compute)
