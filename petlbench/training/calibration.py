"""A temperature that makes probabilities true: fitted on validation once training has ended, for any task's loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from petlbench.training.loss import Loss

_LEAST, _MOST = 0.01, 100.0
# Half the chi-square of one degree of freedom that 95 % stay below.
_DROP = 1.9207


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by before they become probabilities.

    Args:
        value: The temperature; 1 where none could be fitted.
        low: Lower bound of its interval of 95 %: temperatures whose likelihood is not too small, labels drawn anew.
        high: Upper bound of it.
        note: Why none could be fitted; empty where one was.
    """

    value: float = 1.0
    low: float | None = None
    high: float | None = None
    note: str = ""


def fit_temperature(logits: NDArray[Any], labels: NDArray[Any], loss: Loss) -> Temperature:
    """The temperature T between 0.01 and 100 at which the mean loss of ``logits / T`` is least; 1 where none is.

    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, ICML 2017, section 4.2. Cross-entropy, of one class or of several
    labels an image, is convex in 1/T, so that its slope changes sign once: Brent's method finds where, to the last
    digits. None is best for images of one class alone, logits that say nothing, or that tell all images apart.

    Args:
        logits: Of the validation split, (N, C).
        labels: As the task type stores them: (N,), or (N, C) with NaN where a label is not known.
        loss: The task's loss, whose weights and label smoothing are left out.
    """
    from scipy.optimize import brentq

    if not np.isfinite(logits).all():
        return Temperature(note="not fitted: validation has logits that are not finite")
    known = labels[~np.isnan(labels)]
    if len(np.unique(known)) < 2:
        return Temperature(note="not fitted: validation has images of one class alone")
    scores, truth = torch.from_numpy(logits).double(), torch.from_numpy(labels)

    def mean_loss(log_scale: Tensor) -> Tensor:
        return loss.compute(log_scale.exp() * scores, truth, 0.0, None)

    def slope(log_scale: float) -> float:
        scale = torch.tensor(log_scale, dtype=torch.float64, requires_grad=True)
        return float(torch.autograd.grad(mean_loss(scale), scale)[0])

    first, last = -math.log(_MOST), -math.log(_LEAST)
    if slope(first) >= 0:
        return Temperature(note="not fitted: the logits say nothing of the validation labels, or the contrary")
    if slope(last) <= 0:
        return Temperature(
            note="not fitted: the logits tell all validation images apart, so that no temperature is best"
        )
    best = brentq(slope, first, last, xtol=1e-12)
    least = float(mean_loss(torch.tensor(best, dtype=torch.float64)))

    def excess(log_scale: float) -> float:
        return len(known) * (float(mean_loss(torch.tensor(log_scale, dtype=torch.float64))) - least) - _DROP

    ends = [brentq(excess, best, end) if excess(end) > 0 else end for end in (last, first)]
    low, high = (math.exp(-end) for end in ends)
    return Temperature(math.exp(-best), low, high)
