"""Intervals of the scores of one split: what other images of the same kind would have given this very model.

They are of closed form, so that every run can have them when it ends, and they hold for few positives and for an AUC
near 1, where the bootstrap and DeLong's interval are too narrow (`docs/statistics.md` has the simulation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench.metrics.influence import (
    Disagreement,
    auc_influences,
    f1_influences,
    kappa_influences,
    recall_influences,
    sum_by_group,
)
from petlbench.metrics.metric import Labels, Logits, Numbers

FEW = 10
"""Images (or groups) of the rarest side of a score below which its interval is flagged."""

_MODEL_COUNTS = 1.5

Units = NDArray[np.int64]
"""The number of each image's group, (N,), from 0 without gaps."""


def newcombe(
    auc: Numbers,
    positives: Numbers,
    negatives: Numbers,
    spread: tuple[Numbers | float, Numbers | float] = (1.0, 1.0),
    level: float = 0.95,
) -> tuple[Numbers, Numbers]:
    """Give the score-type interval of an AUC: R. G. Newcombe, Statistics in Medicine 25 (2006) 559, method 5.

    The bounds are the A at which ``|A - auc| = z sqrt(V(A))``; as the variance is taken at the bound, an AUC of 1 has
    an interval too. ``V(A) = (A (1 - A) + h(A) (s (n - 1) + t (m - 1))) / (m n)``, where s and t are 1 in Newcombe's
    own form and h is the mean of Hanley and McNeil's variances, for exponential scores, of the two sides' placements,
    ``h(A) = (A (1 - A)^2 / (2 - A) + A^2 (1 - A) / (1 + A)) / 2``. V is at most ``A (1 - A) / min(m, n)``, which no
    scores exceed (Z. W. Birnbaum and O. M. Klose, Annals of Mathematical Statistics 28 (1957) 933).

    Args:
        auc: The AUCs, any shape.
        positives: m, the images of the class; need not be whole (see the design effect).
        negatives: n, the other images.
        spread: s and t: how the variances of the positives' and of the negatives' placements compare with h(auc).
        level: Share of splits whose interval shall hold the true AUC.

    Returns:
        The lower and the upper bounds, shaped as the arguments are together.
    """
    arrays = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in (auc, positives, negatives, *spread)))
    auc, m, n, s, t = arrays

    def variance(a: Numbers) -> Numbers:
        largest = a * (1 - a)
        of_placements = _placement_variance(a) * (s * np.maximum(n - 1, 0) + t * np.maximum(m - 1, 0))
        return np.asarray(np.minimum((largest + of_placements) / (m * n), largest / np.minimum(m, n)))

    return _score_bounds(auc, variance, level)


def wilson(share: Numbers | float, count: Numbers | float, level: float = 0.95) -> tuple[Numbers, Numbers]:
    """Give the score interval of a share: E. B. Wilson, JASA 22 (1927) 209.

    Args:
        share: Shares of images, any shape.
        count: Images that the share is of; need not be whole.
        level: Share of splits whose interval shall hold the true share.

    Returns:
        The lower and the upper bounds.
    """
    share, count = np.broadcast_arrays(np.asarray(share, np.float64), np.asarray(count, np.float64))
    square = _quantile(level) ** 2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = np.sqrt(square * (share * (1 - share) / count + square / (4 * count**2))) / (1 + square / count)
    # Rounding must not put an estimate of 0 or 1 outside its own interval.
    return np.clip(np.minimum(middle - half, share), 0, 1), np.clip(np.maximum(middle + half, share), 0, 1)


def share_interval(hits: NDArray[np.bool_], units: Units, level: float = 0.95) -> tuple[float, float, float]:
    """Bounds of Wilson's interval of a share of images, with groups drawn, and the design effect.

    Args:
        hits: Whether each image counts, (N,), N at least 1.
        units: The number of each image's group, (N,); any numbers.
        level: Share of splits whose interval shall hold the true share.
    """
    numbers = np.unique(units, return_inverse=True)[1]
    influence = (hits - hits.mean()) / len(hits)
    effect = design_effect(influence, numbers)
    low, high = wilson(float(hits.mean()), len(hits) / effect, level)
    return float(low), float(high), effect


def design_effect(influence: Numbers, units: Units) -> float:
    """Say how many times larger a score's variance is when groups are drawn than when images are.

    Args:
        influence: What each image contributes to the score's error, (N,).
        units: The number of each image's group, (N,), from 0 without gaps.

    Returns:
        The ratio (Obuchowski 1997), at least 1, and at most that of groups whose images are all alike, which also
        stands where the images do not vary and it cannot be estimated.
    """
    sizes = np.bincount(units).astype(np.float64)
    if len(sizes) == len(units):
        return 1.0
    largest = float((sizes**2).sum() / sizes.sum())
    alone, by_group = float((influence**2).sum()), float((sum_by_group(influence[None], units) ** 2).sum())
    return largest if alone == 0 else float(np.clip(by_group / alone, 1.0, largest))


def combine(
    values: Numbers, low: Numbers, high: Numbers, correlation: Numbers, *, lean: float = 0.25
) -> tuple[float, float]:
    """Give the interval of a mean from the intervals of its parts, by the method of variance estimates recovery.

    The distance from the mean to its bound is ``sqrt(d' R d) / K`` with the parts' own distances d and their
    correlation R: G. Y. Zou and A. Donner, Statistics in Medicine 27 (2008) 1693. Negative correlations are taken as
    none, which can only widen the interval. Upwards, a part of the way is gone to the mean of both distances, the
    less the fewer the parts, since a mean of many is less skewed than they are (by simulation, ten classes of ten
    images miss the true AUC in up to 7 % instead of 11 %).

    Args:
        values: Estimates of the parts, (K,).
        low: Their lower bounds, (K,).
        high: Their upper bounds, (K,).
        correlation: Correlation of the parts' errors, (K, K).
        lean: That part of the way: for classes of which each image has one a quarter; more for rare labels.

    Returns:
        The lower and the upper bound of the mean of the parts.
    """
    together = np.clip(correlation, 0, 1)
    np.fill_diagonal(together, 1)
    below, above = values - low, high - values
    mean, count = float(values.mean()), len(values)
    down, up, middle = (float(side @ together @ side) / count**2 for side in (below, above, (below + above) / 2))
    up += max(0.0, middle - up) * (1 - 1 / count) * lean
    return max(0.0, mean - down**0.5), min(1.0, mean + up**0.5)


def _score_bounds(estimate: Numbers, variance: Callable[[Numbers], Numbers], level: float) -> tuple[Numbers, Numbers]:
    """Halve the ranges between the estimate and 0 or 1 until the bounds are known to the last digits."""
    square = _quantile(level) ** 2
    inside = np.stack([estimate, estimate]).astype(np.float64)
    outside = np.stack([np.zeros(estimate.shape), np.ones(estimate.shape)])
    for _ in range(40):
        middle = (inside + outside) / 2
        held = (middle - estimate) ** 2 <= square * variance(middle)
        inside, outside = np.where(held, middle, inside), np.where(held, outside, middle)
    return inside[0], inside[1]


def auc_interval(labels: Labels, scores: Logits, units: Units, level: float = 0.95) -> dict[str, Any] | None:
    """Give the interval of the macro AUC of any scores (N, C): Newcombe's of each class, combined."""
    parts = auc_influences(labels, scores)
    if not len(parts[0]):
        return None
    classes = np.array([1]) if scores.shape[1] == 2 else np.unique(labels)
    members = labels == classes[:, None]
    return mean_auc_interval(parts, members, ~members, units, level)


def mean_auc_interval(
    parts: tuple[Numbers, Numbers],
    positive: NDArray[np.bool_],
    negative: NDArray[np.bool_],
    units: Units,
    level: float = 0.95,
    *,
    lean: float = 0.25,
) -> dict[str, Any]:
    """Give the interval of a mean of AUCs: Newcombe's of each, combined.

    Args:
        parts: The AUCs, (K,), K at least 1, and what each image contributes to the error of each, (K, N).
        positive: Whether each image is on the positive side of each, (K, N).
        negative: Whether it is on the other side, (K, N); on neither where that is not known.
        units: The number of each image's group, (N,).
        level: Share of splits whose interval shall hold the true score.
        lean: As of `combine`.
    """
    aucs, influences = parts
    spread = _spread(aucs, influences, positive), _spread(aucs, influences, negative)

    def bounds(effect: float) -> tuple[Numbers, Numbers]:
        positives = positive.sum(axis=1) / effect
        return newcombe(aucs, positives, (positive | negative).sum(axis=1) / effect - positives, spread, level)

    sides = np.concatenate([positive, negative]), units
    return interval_of_mean(parts, bounds, sides, level, "newcombe", lean=lean)


def _placement_variance(auc: Numbers) -> Numbers:
    return auc * (1 - auc) * ((1 - auc) / (2 - auc) + auc / (1 + auc)) / 2


def _spread(aucs: Numbers, influences: Numbers, side: NDArray[np.bool_]) -> Numbers:
    """Compare the variance of one side's placements with that of the model, as far as it can be told from the data.

    The observed ratio counts as many observations as take part in it, ``(sum x^2)^2 / sum x^4``, the model's ratio of
    1 as one and a half: chosen by simulation, so that the interval holds with 7 positives and is not much too wide with
    400 at an AUC of 0.998. Without it, coverage falls to 87 % where positives are one in ten and spread twice as wide.
    """
    squared = influences * influences * side
    squares, fourths = squared.sum(axis=1), (squared * squared).sum(axis=1)
    taking_part = np.divide(squares**2, fourths, out=np.zeros_like(squares), where=fourths > 0)
    model = _placement_variance(aucs)
    ratio = np.divide(squares * side.sum(axis=1), model, out=np.ones_like(squares), where=model > 0)
    return np.asarray((taking_part * ratio + _MODEL_COUNTS) / (taking_part + _MODEL_COUNTS))


def accuracy_interval(labels: Labels, logits: Logits, units: Units, level: float = 0.95) -> dict[str, Any]:
    """Give the interval of the accuracy: Wilson's of a share."""
    low, high, effect = share_interval(labels == logits.argmax(axis=1), units, level)
    return interval_document((low, high), level, "wilson", len(np.unique(units)), effect)


def balanced_accuracy_interval(labels: Labels, logits: Logits, units: Units, level: float = 0.95) -> dict[str, Any]:
    """Give the interval of the balanced accuracy: Wilson's of each recall, combined."""
    recalls, influences = recall_influences(labels, logits)
    support = np.unique(labels, return_counts=True)[1]

    def bounds(effect: float) -> tuple[Numbers, Numbers]:
        return wilson(recalls, support / effect, level)

    return interval_of_mean((recalls, influences), bounds, (_members(labels), units), level)


def f1_interval(labels: Labels, logits: Logits, units: Units, level: float = 0.95) -> dict[str, Any]:
    """Give the interval of the macro F1: that of each class, combined.

    Of the images that are of a class or said to be, J are both: a share, with Wilson's interval; F1 is 2 J / (1 + J).
    """
    scores, influences = f1_influences(labels, logits)
    classes, predicted = np.unique(labels)[:, None], logits.argmax(axis=1)
    either = ((labels == classes) | (predicted == classes)).sum(axis=1)

    def bounds(effect: float) -> tuple[Numbers, Numbers]:
        low, high = wilson(scores / (2 - scores), either / effect, level)
        return 2 * low / (1 + low), 2 * high / (1 + high)

    return interval_of_mean((scores, influences), bounds, (_members(labels), units), level)


def _members(labels: Labels) -> NDArray[np.bool_]:
    """Which images are of each class that is present, (K, N)."""
    return np.asarray(labels == np.unique(labels)[:, None])


def interval_of_mean(
    parts: tuple[Numbers, Numbers],
    bounds: Callable[[float], tuple[Numbers, Numbers]],
    images: tuple[NDArray[np.bool_], Units],
    level: float,
    method: str = "wilson",
    *,
    lean: float = 0.25,
) -> dict[str, Any]:
    """Combine the intervals of some scores into that of their mean.

    Args:
        parts: The scores, (K,), K at least 1, and what each image contributes to the error of each, (K, N).
        bounds: Gives the scores' bounds, two of (K,), for a design effect.
        images: On which sides the images are that the scores rest on, (S, N), and the number of each one's group, (N,).
        level: Share of splits whose interval shall hold the true score.
        method: What the bounds are called.
        lean: As of `combine`.
    """
    (scores, influences), (sides, units) = parts, images
    effect = design_effect(influences.mean(axis=0), units)
    low, high = bounds(effect)
    covariance = (by_group := sum_by_group(influences, units)) @ by_group.T
    deviation = np.sqrt(np.diag(covariance))
    scale = np.outer(deviation, deviation)
    correlation = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    rarest = min(len(np.unique(units[side])) for side in sides)
    return interval_document(combine(scores, low, high, correlation, lean=lean), level, method, rarest, effect)


def kappa_interval(
    labels: Labels, logits: Logits, units: Units, level: float, disagreement: Callable[[Labels, Labels], Disagreement]
) -> dict[str, Any] | None:
    """Give the interval of kappa, whose complement is a weighted sum of few counts: disagreement over that of chance.

    M. P. Fay and E. J. Feuer, Statistics in Medicine 16 (1997) 791: gamma distributions of the same mean and variance,
    above with one more count, here a confusion of weight 1.
    """
    kappas, influences = kappa_influences(labels, logits, disagreement)
    if not len(kappas):
        return None
    ratio, variance = 1 - float(kappas[0]), float((sum_by_group(influences, units) ** 2).sum())
    effect = design_effect(influences[0], units)
    more = effect / (len(labels) * disagreement(labels, logits.argmax(axis=1)).chance)
    low = _gamma_quantile((1 - level) / 2, ratio, variance)
    high = _gamma_quantile((1 + level) / 2, ratio + more, variance + more**2)
    return interval_document((max(1 - high, -1.0), 1 - low), level, "gamma", len(np.unique(units)), effect)


def _gamma_quantile(share: float, mean: float, variance: float) -> float:
    from scipy.special import gammaincinv

    return mean if variance == 0 or mean == 0 else float(gammaincinv(mean**2 / variance, share) * variance / mean)


def interval_document(
    bounds: tuple[float, float], level: float, method: str, positives: int, effect: float
) -> dict[str, Any]:
    """Give an interval as `petlbench.metrics.classification.compute_intervals` describes it."""
    return {
        "low": bounds[0],
        "high": bounds[1],
        "level": level,
        "method": method,
        "few": positives < FEW,
        "positives": positives,
        "design_effect": effect,
    }


def _quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))
