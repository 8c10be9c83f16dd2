"""The metrics of one number an image.

Intervals are of the delta method with Student's t over images, or groups: of MAE and RMSE on their logarithm, of R2 on
``log(1 - R2)``, of Pearson's r on Fisher's z (R. A. Fisher, Metron 1 (1921) 3), whose variance is that of the images'
influences, so that it needs no normal errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from petlbench.metrics.influence import small_sample, sum_by_group
from petlbench.metrics.intervals import Units, design_effect, interval_document
from petlbench.metrics.metric import Labels, Logits, Metric, Numbers

_Part = Callable[[Labels, Numbers], "tuple[float, Numbers] | None"]
"""From labels (N,) and predictions (N,) to a score and its influences, (N,); None where it is undefined."""


def count_values(labels: Labels, logits: Logits) -> dict[str, Any]:
    """Count the images of one split, N labels (N,) and predictions (N, 1) in the same unit.

    Returns:
        ``count``: N.

    Raises:
        ValueError: The shapes do not fit, or a label is not finite.
    """
    if logits.shape != (len(labels), 1) or labels.ndim != 1:
        raise ValueError(f"labels (N,) and predictions (N, 1) expected, got {labels.shape} and {logits.shape}")
    if not np.isfinite(labels).all():
        raise ValueError("labels have to be finite")
    return {"count": len(labels)}


def _mean(values: Numbers) -> tuple[float, Numbers]:
    mean = float(values.mean())
    return mean, (values - mean) / len(values) * small_sample(len(values))


def _mae(labels: Labels, predicted: Numbers) -> tuple[float, Numbers]:
    return _mean(np.abs(predicted - labels))


def _rmse(labels: Labels, predicted: Numbers) -> tuple[float, Numbers]:
    square, influences = _mean((predicted - labels) ** 2)
    root = float(np.sqrt(square))
    return root, influences / (2 * root) if root > 0 else influences


def _r2(labels: Labels, predicted: Numbers) -> tuple[float, Numbers] | None:
    """One less the squared error over that of the labels' own mean."""
    (error, of_error), (spread, of_spread) = _mean((predicted - labels) ** 2), _mean((labels - labels.mean()) ** 2)
    if spread == 0:
        return None
    return 1 - error / spread, (error / spread * of_spread - of_error) / spread


def _pearson(labels: Labels, predicted: Numbers) -> tuple[float, Numbers] | None:
    deviations = labels.std(), predicted.std()
    if 0 in deviations:
        return None
    x, y = (labels - labels.mean()) / deviations[0], (predicted - predicted.mean()) / deviations[1]
    r = float(np.clip((x * y).mean(), -1, 1))
    return r, (x * y - r * (x * x + y * y) / 2) / len(labels) * small_sample(len(labels))


def _row(
    part: _Part, to_line: Callable[[float], float], slope: Callable[[float], float], back: Callable[[float], float]
) -> dict[str, Any]:
    """What a row has.

    Args:
        part: The score and its influences.
        to_line: Takes the score to where its error is symmetrical; not finite where it has no interval.
        slope: Its derivative.
        back: Its inverse.
    """

    def both(labels: Labels, logits: Logits) -> tuple[float, Numbers] | None:
        return part(labels.astype(np.float64), logits[:, 0].astype(np.float64)) if len(labels) else None

    def compute(labels: Labels, logits: Logits) -> float | None:
        return None if (score := both(labels, logits)) is None else score[0]

    def contribution(labels: Labels, logits: Logits) -> Numbers | None:
        return None if (score := both(labels, logits)) is None else score[1]

    def interval(labels: Labels, logits: Logits, units: Units, level: float) -> dict[str, Any] | None:
        from scipy.special import stdtrit

        score, groups = both(labels, logits), len(np.unique(units))
        if score is None or groups < 2:
            return None
        value, influences = score
        error = float(np.sqrt((sum_by_group(influences[None], units) ** 2).sum()))
        with np.errstate(divide="ignore", invalid="ignore"):
            middle, reach = to_line(value), float(stdtrit(groups - 1, (1 + level) / 2)) * error * abs(slope(value))
        if not np.isfinite([middle, reach]).all():
            return None
        low, high = sorted((back(middle - reach), back(middle + reach)))
        # Rounding must not put the score outside its own interval.
        bounds = min(low, value), max(high, value)
        return interval_document(bounds, level, "delta", groups, design_effect(influences, units))

    return {"compute": compute, "contribution": contribution, "interval": interval, "takes": "value"}


_LOG: tuple[Any, Any, Any] = (np.log, lambda value: np.divide(1.0, value), np.exp)

MAE = Metric(name="mae", title="MAE", direction="lower", unit="the label's unit", **_row(_mae, *_LOG))

RMSE = Metric(name="rmse", title="RMSE", direction="lower", unit="the label's unit", **_row(_rmse, *_LOG))

R2 = Metric(
    name="r2",
    title="R2",
    direction="higher",
    **_row(_r2, lambda r2: np.log(1 - r2), lambda r2: np.divide(1.0, 1 - r2), lambda line: 1 - np.exp(line)),
)

PEARSON = Metric(
    name="pearson",
    title="Pearson's r",
    direction="higher",
    **_row(_pearson, np.arctanh, lambda r: np.divide(1.0, 1 - r * r), np.tanh),
)

REGRESSION_METRICS = (MAE, RMSE, R2, PEARSON)
"""The scores in the order of tables."""
