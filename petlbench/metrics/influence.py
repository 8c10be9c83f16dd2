"""What each image of a split contributes to the error of a score.

The influence of image i on a score is scaled so that the score's variance over draws of images is the sum of the
squared influences. Everything else follows by adding influences up before they are squared: over the images of a group
where groups are drawn, over classes for a macro average, over seeds for a mean, with a minus sign for a difference of
two methods on the same images. The method is the infinitesimal jackknife; for the AUC it is DeLong's estimate.

Sources: E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, Biometrics 44 (1988) 837; B. Efron, The Jackknife, the
Bootstrap and Other Resampling Plans (1982), chapter 6; N. A. Obuchowski, Biometrics 53 (1997) 567 (groups).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petlbench.metrics.metric import Labels, Logits, Numbers


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
    parts = [one_auc(labels == index, scores[:, index].astype(np.float64)) for index in classes]
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
    return scores[:, 0], (2 * of_class * positive - scores * (of_class + positive)) / total * small_sample(len(labels))


@dataclass(frozen=True)
class Disagreement:
    """How far labels and predictions differ, by the weights of a kappa.

    Args:
        observed: Weight between each image's true class and its predicted one, (N,).
        by_truth: Mean weight between each image's true class and all predicted ones, (N,).
        by_prediction: Mean weight between each image's predicted class and all true ones, (N,).
        chance: Mean weight of a true class and a predicted one that are drawn apart.
    """

    observed: Numbers
    by_truth: Numbers
    by_prediction: Numbers
    chance: float


def quadratic_disagreement(labels: Labels, predicted: Labels) -> Disagreement:
    """Weigh two classes by the square of their distance, for classes that have an order."""
    truth, prediction = labels.astype(np.float64), predicted.astype(np.float64)
    return Disagreement(
        (truth - prediction) ** 2,
        (truth - prediction.mean()) ** 2 + prediction.var(),
        (prediction - truth.mean()) ** 2 + truth.var(),
        float(labels.var() + predicted.var() + (labels.mean() - predicted.mean()) ** 2),
    )


def plain_disagreement(labels: Labels, predicted: Labels) -> Disagreement:
    """Weigh two different classes by 1, whichever they are."""
    truth = np.bincount(labels, minlength=1 + max(labels.max(), predicted.max())) / len(labels)
    prediction = np.bincount(predicted, minlength=len(truth)) / len(labels)
    observed = (labels != predicted).astype(np.float64)
    # Where all are of one class, the sum is exactly 1.
    return Disagreement(observed, 1 - prediction[labels], 1 - truth[predicted], 1 - float(truth @ prediction))


def kappa_influences(
    labels: Labels, logits: Logits, disagreement: Callable[[Labels, Labels], Disagreement]
) -> tuple[Numbers, Numbers]:
    """Compute Cohen's kappa, and what each image contributes to its error.

    With the disagreement that was observed, a = sum w p, and that of chance, e = sum w r c (r and c being the shares of
    true and predicted classes), kappa is 1 - a / e. An image moves a by its own weight, and e by both of its margins:
    J. L. Fleiss, J. Cohen and B. S. Everitt, Psychological Bulletin 72 (1969) 323.

    Returns:
        Kappa, (1,), and the influences, (1, N); of neither any, where all labels and predictions are one class.
    """
    weights = disagreement(labels, logits.argmax(axis=1))
    if weights.chance == 0:
        return np.empty(0), np.empty((0, len(labels)))
    ratio = float(weights.observed.mean()) / weights.chance
    by_chance = weights.by_truth + weights.by_prediction - weights.chance
    _, influences = _mean_influences((ratio * by_chance - weights.observed) / weights.chance)
    return np.array([1 - ratio]), influences


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
    return np.asarray(sums * small_sample(count))


def one_auc(positive: NDArray[np.bool_], scores: Numbers) -> tuple[float, Numbers]:
    """Compute an AUC and its influences, (N,), by DeLong's structural components.

    These are the share of the other side that each image is ranked right against.

    Args:
        positive: Whether each image is on the positive side, (N,); some have to be, and some not.
        scores: Scores, (N,).
    """
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


def small_sample(count: int) -> float:
    """What makes the variance of images drawn without bias."""
    return float(np.sqrt(count / max(count - 1, 1)))
