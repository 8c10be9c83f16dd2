"""The losses of one number an image, on outputs and labels that are standardised on the training split."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from petlbench.training.loss import Loss


def _mean_of(function: Callable[..., Tensor]) -> Callable[[Tensor, Tensor, float, Tensor | None], Tensor]:
    """Make the mean over a batch, a scalar, of logits (B, 1) and labels (B,); nothing is smoothed or weighed."""
    return lambda logits, labels, label_smoothing, class_weights: function(logits[:, 0], labels)


def _numbers(images: int, outputs: int) -> tuple[tuple[int, ...], torch.dtype]:
    return (images,), torch.float32


L1 = Loss(name="l1", title="L1", compute=_mean_of(nn.functional.l1_loss), takes="value", example=_numbers)
L2 = Loss(name="l2", title="L2", compute=_mean_of(nn.functional.mse_loss), takes="value", example=_numbers)
# P. J. Huber, Annals of Mathematical Statistics 35 (1964) 73: quadratic up to one standard deviation of the labels.
HUBER = Loss(name="huber", title="Huber", compute=_mean_of(nn.functional.huber_loss), takes="value", example=_numbers)
