"""The scores themselves: each from labels and logits, or from labels and any other values by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from petlbench.metrics.metric import Labels, Logits, Numbers

__all__ = ["accuracy", "balanced_accuracy", "confusion", "cross_entropy", "macro_auc", "macro_f1", "quadratic_kappa"]


def macro_auc(labels: Labels, scores: Logits) -> float | None:
    """Area under the ROC curve, macro average of one class against the rest; with two classes that of class 1."""
    from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped, unused-ignore]  # half a second to import

    present = np.unique(labels)
    if len(present) < 2:
        return None
    if scores.shape[1] == 2:
        present = np.array([1])
    return float(np.mean([roc_auc_score(labels == index, scores[:, index]) for index in present]))


def confusion(labels: Labels, logits: Logits) -> NDArray[np.int64]:
    """Count images by true class (rows) and predicted class (columns), (C, C)."""
    classes = logits.shape[1]
    cells = np.bincount(labels.astype(np.int64) * classes + logits.argmax(axis=1), minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)


def accuracy(labels: Labels, logits: Logits) -> float:
    """Share of images whose largest logit is that of their class."""
    return float((logits.argmax(axis=1) == labels).sum() / len(labels))


def balanced_accuracy(labels: Labels, logits: Logits) -> float:
    """Mean recall of the classes that are present."""
    counts = confusion(labels, logits)
    support = counts.sum(axis=1)
    present = support > 0
    return float(np.mean(np.diag(counts)[present] / support[present]))


def macro_f1(labels: Labels, logits: Logits) -> float:
    """Mean F1 of the classes that are present."""
    # 2 TP / (2 TP + FP + FN): labels and predictions of a class together make up the denominator.
    counts = confusion(labels, logits)
    support = counts.sum(axis=1)
    present = support > 0
    return float(np.mean(2 * np.diag(counts)[present] / (support + counts.sum(axis=0))[present]))


def quadratic_kappa(labels: Labels, logits: Logits) -> float | None:
    """Cohen's kappa with quadratic weights (Cohen 1968); None where labels and predictions name one class only."""
    counts = confusion(labels, logits)
    index = np.arange(len(counts), dtype=np.float64)
    weights = (index[:, None] - index[None, :]) ** 2
    by_chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    expected = float((weights * by_chance).sum())
    return None if expected == 0 else 1.0 - float((weights * counts).sum()) / expected


def cross_entropy(labels: Labels, logits: Logits) -> float:
    """Mean cross-entropy in nats."""
    return float(np.mean(losses(labels, logits)))


def losses(labels: Labels, logits: Logits) -> Numbers:
    """Cross-entropy of each image in nats, (N,)."""
    largest = logits.max(axis=1)
    log_total = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    return np.asarray(log_total - logits[np.arange(len(labels)), labels])
