"""The metrics of several labels an image, which are means over labels; what is not known of an image is left out.

A label that has one side only, known images with it or without it, has no AUC, average precision or F1, and is in no
mean of them. AUC and accuracy are those of MedMNIST's evaluator (J. Yang et al., Scientific Data 10 (2023) 41), which
knows no unknown labels and no absent ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench.metrics.classification import mean_of
from petlbench.metrics.influence import one_auc, small_sample
from petlbench.metrics.intervals import (
    Units,
    interval_document,
    interval_of_mean,
    mean_auc_interval,
    share_interval,
    wilson,
)
from petlbench.metrics.metric import Labels, Logits, Metric, Numbers

_FORM = "mean over labels"


def sigmoid(logits: Logits) -> Numbers:
    """Turn logits (N, C) into the probability of each label, (N, C), in float64."""
    from scipy.special import expit

    return np.asarray(expit(logits.astype(np.float64)))


def count_labels(labels: Labels, logits: Logits) -> dict[str, Any]:
    """Count the images of one split by label.

    Args:
        labels: 1, 0, or NaN for what is not known, (N, C).
        logits: Scores before the sigmoid, (N, C).

    Returns:
        ``support``: images with each label. ``unknown``: images of which that is not known. ``classes_absent``: labels
        without known images on both sides. ``count``: N.

    Raises:
        ValueError: The shapes do not fit, or a label is something else.
    """
    if logits.ndim != 2 or labels.shape != logits.shape:
        raise ValueError(f"labels (N, C) and logits (N, C) expected, got {labels.shape} and {logits.shape}")
    if not (np.isin(labels, (0, 1)) | np.isnan(labels)).all():
        raise ValueError("labels are 0, 1 or NaN")
    return {
        "support": (labels == 1).sum(axis=0).tolist(),
        "unknown": np.isnan(labels).sum(axis=0).tolist(),
        "classes_absent": np.flatnonzero(~_two_sided(labels)).tolist(),
        "count": len(labels),
    }


def _two_sided(labels: Labels) -> NDArray[np.bool_]:
    """Which labels, (C,), have known images with them and without."""
    return np.asarray((labels == 1).any(axis=0) & (labels == 0).any(axis=0))


def _by_label(score: Any, labels: Labels, values: Numbers) -> tuple[Numbers, Numbers]:
    """A score of every label with two sides, (K,), and its influences, (K, N): none of images of which it is unknown.

    Args:
        score: From whether images have a label, (n,), and values, (n,), to the score and the influences, (n,).
        labels: Labels, (N, C).
        values: What the score is of, (N, C).
    """
    columns = np.flatnonzero(_two_sided(labels)).tolist()
    scores, influences = np.empty(len(columns)), np.zeros((len(columns), len(labels)))
    for place, column in enumerate(columns):
        rows = np.flatnonzero(~np.isnan(labels[:, column]))
        scores[place], influences[place, rows] = score(labels[rows, column] == 1, values[rows, column])
    return scores, influences


def _auc_parts(labels: Labels, logits: Logits) -> tuple[Numbers, Numbers]:
    return _by_label(one_auc, labels, sigmoid(logits))


def _auc_interval(labels: Labels, logits: Logits, units: Units, level: float) -> dict[str, Any] | None:
    """Newcombe's interval of each label's AUC, combined by the correlation of their errors.

    Of labels with two to twenty positives among others the upper bounds are too near: by simulation, 14 labels with
    prevalences from 0.2 to 20 % miss the true mean above in 5 % of 1,000 images, and in 3 % with twice the lean.
    """
    parts, columns = _auc_parts(labels, logits), labels.T[_two_sided(labels)]
    return mean_auc_interval(parts, columns == 1, columns == 0, units, level, lean=0.5) if len(columns) else None


def average_precision(positive: NDArray[np.bool_], scores: Numbers) -> tuple[float, Numbers]:
    """Compute the area under the precision-recall curve as a sum, and what each image contributes to its error.

    It is the mean over positives i of ``A_i / (A_i + B_i)``, where A counts the positives, and B the others, of at
    least i's score. The influence is its derivative by the weight of an image in A, B and the mean.

    Args:
        positive: Whether each image is on the positive side, (N,); some have to be.
        scores: Scores, (N,).

    Returns:
        The average precision, and the influences, (N,).
    """
    order = np.argsort(-scores, kind="stable")
    hit, ordered = positive[order].astype(np.float64), scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.concatenate([starts[1:], [len(ordered)]]) - 1
    run = np.repeat(np.arange(len(starts)), ends - starts + 1)
    above, others = np.cumsum(hit)[ends][run], np.cumsum(1 - hit)[ends][run]
    count, precision = hit.sum(), above / (above + others)
    value = float((hit * precision).sum() / count)
    gain, loss = (hit * part / (above + others) ** 2 / count for part in (others, above))
    # What the images of at most one's own score gain or lose by its weight.
    gain, loss = (np.cumsum(part[::-1])[::-1][starts][run] for part in (gain, loss))
    influences = np.empty(len(scores))
    influences[order] = hit * (precision - value) / count + hit * gain - (1 - hit) * loss
    return value, influences * small_sample(len(scores))


def _precision_parts(labels: Labels, logits: Logits) -> tuple[Numbers, Numbers]:
    return _by_label(average_precision, labels, sigmoid(logits))


def _precision_interval(labels: Labels, logits: Logits, units: Units, level: float) -> dict[str, Any] | None:
    """The binomial variance over positives (K. Boyd, K. Eng and C. D. Page, ECML 2013), in Wilson's form, combined."""
    parts, positive = _precision_parts(labels, logits), labels.T[_two_sided(labels)] == 1
    if not len(positive):
        return None
    counts = positive.sum(axis=1)
    return interval_of_mean(parts, lambda effect: wilson(parts[0], counts / effect, level), (positive, units), level)


def _accuracy_parts(labels: Labels, logits: Logits) -> tuple[Numbers, Numbers]:
    known = ~np.isnan(labels.T)
    known, right = known[known.any(axis=1)], _right(labels, logits).T[known.any(axis=1)]
    counts = known.sum(axis=1, keepdims=True)
    shares = (right & known).sum(axis=1, keepdims=True) / counts
    return shares[:, 0], known * (right - shares) / np.sqrt(counts * np.maximum(counts - 1, 1))


def _right(labels: Labels, logits: Logits) -> NDArray[np.bool_]:
    """Whether an image is said to have a label, (N, C), as it does: with a probability above one half."""
    return np.asarray((sigmoid(logits) > 0.5) == (labels == 1))


def _accuracy_interval(labels: Labels, logits: Logits, units: Units, level: float) -> dict[str, Any] | None:
    """Wilson's interval of each label's accuracy, combined."""
    parts, known = _accuracy_parts(labels, logits), ~np.isnan(labels.T)
    known = known[known.any(axis=1)]
    if not len(known):
        return None
    counts = known.sum(axis=1)
    return interval_of_mean(parts, lambda effect: wilson(parts[0], counts / effect, level), (known, units), level)


def _f1(positive: NDArray[np.bool_], probabilities: Numbers) -> tuple[float, Numbers]:
    """F1 of a label, a ratio of two sums, whose influence is linear in both."""
    of_label, said = positive.astype(np.float64), (probabilities > 0.5).astype(np.float64)
    total = float((of_label + said).sum())
    value = 2 * float((of_label * said).sum()) / total
    return value, (2 * of_label * said - value * (of_label + said)) / total * small_sample(len(positive))


def _f1_parts(labels: Labels, logits: Logits) -> tuple[Numbers, Numbers]:
    return _by_label(_f1, labels, sigmoid(logits))


def _f1_interval(labels: Labels, logits: Logits, units: Units, level: float) -> dict[str, Any] | None:
    """That of each label, as of each class in `petlbench.metrics.intervals.f1_interval`, combined."""
    parts, columns = _f1_parts(labels, logits), labels.T[_two_sided(labels)]
    if not len(columns):
        return None
    either = ((columns == 1) | ((sigmoid(logits).T[_two_sided(labels)] > 0.5) & (columns == 0))).sum(axis=1)

    def bounds(effect: float) -> tuple[Numbers, Numbers]:
        low, high = wilson(parts[0] / (2 - parts[0]), either / effect, level)
        return 2 * low / (1 + low), 2 * high / (1 + high)

    return interval_of_mean(parts, bounds, (columns == 1, units), level)


def _exact(labels: Labels, logits: Logits) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which images have a known label, (N,), and of which all known labels are said rightly, (N,)."""
    known = ~np.isnan(labels)
    return np.asarray(known.any(axis=1)), np.asarray((_right(labels, logits) | ~known).all(axis=1))


def _exact_parts(labels: Labels, logits: Logits) -> tuple[Numbers, Numbers]:
    counted, right = _exact(labels, logits)
    count = int(counted.sum())
    if not count:
        return np.empty(0), np.empty((0, len(labels)))
    share = float(right[counted].mean())
    return np.array([share]), (counted * (right - share) / np.sqrt(count * max(count - 1, 1)))[None]


def _exact_interval(labels: Labels, logits: Logits, units: Units, level: float) -> dict[str, Any] | None:
    """Wilson's of a share."""
    counted, right = _exact(labels, logits)
    if not counted.any():
        return None
    low, high, effect = share_interval(right[counted], units[counted], level)
    return interval_document((low, high), level, "wilson", len(np.unique(units[counted])), effect)


def _loss_parts(labels: Labels, logits: Logits) -> tuple[Numbers, Numbers]:
    """Mean over all known labels of the split: a ratio of two sums over images."""
    known = ~np.isnan(labels)
    total = int(known.sum())
    if not total:
        return np.empty(0), np.empty((0, len(labels)))
    losses = np.where(known, np.logaddexp(0.0, np.where(labels == 1, -1.0, 1.0) * logits), 0.0)
    mean = float(losses.sum() / total)
    influences = (losses.sum(axis=1) - mean * known.sum(axis=1)) / total * small_sample(len(labels))
    return np.array([mean]), influences[None]


AVERAGE_PRECISION = Metric(
    name="average_precision",
    title="average precision",
    direction="higher",
    form=_FORM,
    takes="labels",
    interval=_precision_interval,
    **mean_of(_precision_parts),
)

EXACT_MATCH = Metric(
    name="exact_match",
    title="exact match",
    direction="higher",
    takes="labels",
    interval=_exact_interval,
    **mean_of(_exact_parts),
)

MULTILABEL_METRICS = (
    Metric("auc", "AUC", "higher", form=_FORM, takes="labels", interval=_auc_interval, **mean_of(_auc_parts)),
    AVERAGE_PRECISION,
    Metric(
        "accuracy",
        "accuracy",
        "higher",
        form=_FORM,
        takes="labels",
        interval=_accuracy_interval,
        **mean_of(_accuracy_parts),
    ),
    Metric("f1", "F1", "higher", form=_FORM, takes="labels", interval=_f1_interval, **mean_of(_f1_parts)),
    EXACT_MATCH,
    Metric("loss", "loss", "lower", unit="nats", form="mean over labels", takes="labels", **mean_of(_loss_parts)),
)
"""The scores in the order of tables; those with a name that others have, too, are forms of their own."""
