"""What each image of a split contributes to the error of a score.

The influence of image i on a score is scaled so that the score's variance over draws of images is the sum of the
squared influences. Everything else follows by adding influences up before they are squared: over the images of a group
where groups are drawn, over classes for a macro average, over seeds for a mean, with a minus sign for a difference of
two methods on the same images. The method is the infinitesimal jackknife; for the AUC it is DeLong's estimate.

Sources: E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, Biometrics 44 (1988) 837; B. Efron, The Jackknife, the
Bootstrap and Other Resampling Plans (1982), chapter 6; N. A. Obuchowski, Biometrics 53 (1997) 567 (groups).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from petlbench.metrics.metric import Labels, Logits, Numbers

__all__ = [
    "accuracy_influences",
    "auc_influences",
    "chance_disagreement",
    "f1_influences",
    "kappa_influences",
    "loss_influences",
    "number_groups",
    "recall_influences",
    "sum_by_group",
]


def auc_influences(labels: Labels, scores: Logits) -> tuple[Numbers, Numbers]:
    """Compute the AUC of each class against the rest, and what each image contributes to its error.

    Args:
        labels: True class of each image, (N,).
        scores: Scores, (N, C); with two classes only column 1 counts.

    Returns:
        The AUCs, (K,), and the influences, (K, N): K is 1 with two classes, else the number of classes that some
        image has, and 0 where fewer than two classes have one.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return np.empty(0), np.empty((0, len(labels)))
    classes = [1] if scores.shape[1] == 2 else present.tolist()
    parts = [_one_auc(labels == index, scores[:, index].astype(np.float64)) for index in classes]
    return np.array([auc for auc, _ in parts]), np.stack([influence for _, influence in parts])


def recall_influences(labels: Labels, logits: Logits) -> tuple[Numbers, Numbers]:
    """Compute the recall of each class that is present, and what each image contributes to its error.

    Returns:
        The recalls, (K,), and the influences, (K, N).
    """
    members = labels == np.unique(labels)[:, None]
    right = (labels == logits.argmax(axis=1)).astype(np.float64)
    counts = members.sum(axis=1)
    recalls = (members * right).sum(axis=1) / counts
    scale = np.sqrt(counts * np.maximum(counts - 1, 1))
    return recalls, members * (right - recalls[:, None]) / scale[:, None]


def f1_influences(labels: Labels, logits: Logits) -> tuple[Numbers, Numbers]:
    """Compute the F1 of each class that is present, and what each image contributes to its error.

    F1 is twice the images that are rightly of the class, over those that are or are said to be: a ratio of two sums,
    whose influence is linear in both.

    Returns:
        The F1s, (K,), and the influences, (K, N).
    """
    classes, predicted = np.unique(labels)[:, None], logits.argmax(axis=1)
    of_class, positive = (labels == classes).astype(np.float64), (predicted == classes).astype(np.float64)
    total = (of_class + positive).sum(axis=1, keepdims=True)
    scores = 2 * (of_class * positive).sum(axis=1, keepdims=True) / total
    return scores[:, 0], (2 * of_class * positive - scores * (of_class + positive)) / total * _small_sample(len(labels))


def kappa_influences(labels: Labels, logits: Logits) -> tuple[Numbers, Numbers]:
    """Compute Cohen's kappa with quadratic weights, and what each image contributes to its error.

    With the disagreement that was observed, a = sum w p, and that of chance, e = sum w r c (r and c being the shares of
    true and predicted classes), kappa is 1 - a / e. An image moves a by its own weight, and e by both of its margins:
    J. L. Fleiss, J. Cohen and B. S. Everitt, Psychological Bulletin 72 (1969) 323.

    Returns:
        Kappa, (1,), and the influences, (1, N); of neither any, where all labels and predictions are one class.
    """
    predicted = logits.argmax(axis=1)
    truth, prediction = labels.astype(np.float64), predicted.astype(np.float64)
    observed, chance = (truth - prediction) ** 2, chance_disagreement(labels, predicted)
    if chance == 0:
        return np.empty(0), np.empty((0, len(labels)))
    # Mean weight between an image's true class and all predicted ones, and the other way round.
    by_truth = (truth - prediction.mean()) ** 2 + prediction.var()
    by_prediction = (prediction - truth.mean()) ** 2 + truth.var()
    ratio = float(observed.mean()) / chance
    _, influences = _mean_influences((ratio * (by_truth + by_prediction - chance) - observed) / chance)
    return np.array([1 - ratio]), influences


def chance_disagreement(labels: Labels, predicted: Labels) -> float:
    """Compute the mean squared distance of a true class and a predicted one that are drawn apart."""
    return float(labels.var() + predicted.var() + (labels.mean() - predicted.mean()) ** 2)


def accuracy_influences(labels: Labels, logits: Logits) -> tuple[Numbers, Numbers]:
    """Compute the share of images whose largest logit is that of their class, (1,), and its influences, (1, N)."""
    return _mean_influences((logits.argmax(axis=1) == labels).astype(np.float64))


def loss_influences(labels: Labels, logits: Logits) -> tuple[Numbers, Numbers]:
    """Compute the mean cross-entropy in nats, (1,), and its influences, (1, N)."""
    exact = logits.astype(np.float64)
    largest = exact.max(axis=1)
    log_total = largest + np.log(np.exp(exact - largest[:, None]).sum(axis=1))
    return _mean_influences(log_total - exact[np.arange(len(labels)), labels])


def number_groups(groups: Sequence[str | None] | None, count: int) -> NDArray[np.int64]:
    """Numbers of N images, (N,), from 0 without gaps: one for each group, and for each image without a group."""
    if groups is None or all(group is None for group in groups):
        return np.arange(count)
    # A number is never equal to a group's name, so that an image without a group stays alone.
    numbers: dict[str | int, int] = {}
    keys = (row if group is None else group for row, group in enumerate(groups))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def sum_by_group(influences: Numbers, units: NDArray[np.int64]) -> Numbers:
    """Influences of groups, (K, G), scaled by the root of G / (G - 1) where groups have several images.

    Args:
        influences: Influences of images, (K, N).
        units: The number of each image's group, (N,), as of `number_groups`.
    """
    count = int(units.max()) + 1 if len(units) else 0
    if count == len(units):
        return influences
    sums = np.stack([np.bincount(units, weights=row, minlength=count) for row in influences])
    return np.asarray(sums * _small_sample(count))


def _one_auc(positive: NDArray[np.bool_], scores: Numbers) -> tuple[float, Numbers]:
    """DeLong's structural components: the share of the other side that each image is ranked right against."""
    order = np.argsort(scores)
    negatives = int((~positive).sum())
    below = _sum_below(scores[order], ~positive[order]) / negatives
    above = 1 - _sum_below(scores[order], positive[order]) / (len(scores) - negatives)
    right = np.empty(len(scores))
    right[order] = np.where(positive[order], below, above)
    auc = float(right[positive].mean())
    counts = np.where(positive, len(scores) - negatives, negatives)
    return auc, (right - auc) / np.sqrt(counts * np.maximum(counts - 1, 1))


def _sum_below(ordered: Numbers, counted: NDArray[np.bool_]) -> Numbers:
    """How many of those counted have a smaller score than each image; of equal scores, half of them."""
    total = np.concatenate([[0], np.cumsum(counted)])
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    starts = np.flatnonzero(new)
    run = np.cumsum(new) - 1
    ends = np.concatenate([starts[1:], [len(ordered)]])
    return np.asarray((total[starts] + total[ends])[run] / 2)


def _mean_influences(values: Numbers) -> tuple[Numbers, Numbers]:
    mean, count = values.mean(), len(values)
    return np.array([mean]), np.asarray((values - mean) / np.sqrt(count * max(count - 1, 1)))[None]


def _small_sample(count: int) -> float:
    """What makes the variance of images drawn without bias."""
    return float(np.sqrt(count / max(count - 1, 1)))
