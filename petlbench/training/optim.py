"""The optimiser of a run, and its learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from petlbench.core.config import TrainingConfig

__all__ = ["learning_rate"]


_MOMENTUM = 0.9


def _optimizer(parameters: Sequence[nn.Parameter], training: TrainingConfig) -> torch.optim.Optimizer:
    lr, decay = training.lr, training.weight_decay
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=_MOMENTUM, weight_decay=decay, foreach=True)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, foreach=True)


def learning_rate(config: TrainingConfig, position: float, step: float) -> float:
    """Learning rate of one step: linear warm-up, then a cosine to zero or a constant.

    Args:
        config: How to train.
        position: Epochs done before the step, fractions included.
        step: Length of one step in epochs.
    """
    if position < config.warmup_epochs:
        return config.lr * min(1.0, (position + step) / config.warmup_epochs)
    if config.schedule == "constant":
        return config.lr
    share = (position - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, step)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
