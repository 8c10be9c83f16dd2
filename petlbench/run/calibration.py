"""What makes the probabilities of a run true, and how much it does: on each split, before and after."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from petlbench.data.tasks.base import TaskType
from petlbench.results.result import Calibration
from petlbench.statistics.clinical import calibration_errors
from petlbench.training.calibration import fit_temperature
from petlbench.training.evaluation import Labels, Logits
from petlbench.training.loss import Loss


def calibrate(outputs: Mapping[str, tuple[Labels, Logits]], loss: Loss, task: TaskType) -> Calibration:
    """The temperature that the validation split gives, with the figures of every split before and after.

    Args:
        outputs: Labels (N,) and logits (N, C) by split; ``val`` is one of them.
        loss: The task's loss.
        task: What a label is.
    """
    labels, logits = outputs["val"]
    fit = fit_temperature(logits, labels, loss)
    figures = {split: before_and_after(*output, fit.value, loss, task) for split, output in outputs.items()}
    return Calibration(
        temperature=fit.value,
        low=fit.low,
        high=fit.high,
        images=len(labels),
        loss=loss.name,
        note=fit.note,
        figures={split: both for split, both in figures.items() if both},
    )


def before_and_after(
    labels: Labels, logits: Logits, temperature: float, loss: Loss, task: TaskType
) -> dict[str, dict[str, float]]:
    """How far probabilities are from the truth ``before`` and ``after`` logits are divided by the temperature.

    Returns:
        Each with ``ece`` and ``brier``, as `calibration_errors` has them, and the ``loss``; nothing where there is no
        image or a logit is not finite.
    """
    if len(labels) == 0 or not np.isfinite(logits).all():
        return {}
    exact = logits.astype(np.float64)
    figures = {}
    for when, divisor in (("before", 1.0), ("after", temperature)):
        scaled = exact / divisor
        mean = loss.compute(torch.from_numpy(scaled), torch.from_numpy(labels), 0.0, None)
        figures[when] = {**calibration_errors(labels, scaled, task), "loss": float(mean)}
    return figures
