"""Scores of a classifier, and the two that weigh performance against parameters (PPE) and against memory (PME)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["evaluate", "softmax"]


_SCORES = ("auc", "auc_logits", "accuracy", "balanced_accuracy", "f1", "kappa", "loss", "confusion_matrix")


def evaluate(labels: NDArray[np.integer[Any]], logits: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Score the logits of one split.

    A class that no label of the split names has no AUC, recall or F1 of its own: the macro averages (``auc``,
    ``auc_logits``, ``balanced_accuracy``, ``f1``) are taken over the classes that are present, and ``classes_absent``
    lists the others. A score that is undefined is ``None``, never NaN: both AUCs when fewer than two classes are
    present, ``kappa`` when labels and predictions name one and the same class, every score when the split is empty or
    when any logit is infinite or NaN.

    The softmax of ``auc`` is computed in float64 from the logits as they are given. It saturates: once the largest
    logit leads by about 37, its probability is exactly 1. Images that the logits rank are then ties, so ``auc`` may
    differ from ``auc_logits`` with two classes as well. With more classes the two differ in any case, since a raw logit
    is not normalised over the classes of its image.

    Args:
        labels: True class of each image, shape (N,), integers in 0 .. C-1.
        logits: Scores before the softmax, shape (N, C), C at least 2; column 1 is the positive class when C is 2.

    Returns:
        ``auc``: area under the ROC curve of the probabilities, macro average of one class against the rest; with two
        classes that of the positive class. ``auc_logits``: the same on raw logits; with two classes on the positive
        class's logit alone. ``accuracy``. ``balanced_accuracy``: mean recall. ``f1``: macro F1. ``kappa``: Cohen's
        kappa with quadratic weights (Cohen 1968). ``loss``: mean cross-entropy in nats. ``confusion_matrix``: C lists
        of C counts, rows are true classes. ``support``: C counts of labels. ``classes_absent``: class indices.
        ``count``: N. Scores are fractions.

    Raises:
        ValueError: The shapes do not fit, there are fewer than two classes, or a label is outside 0 .. C-1.

    Example:
        >>> evaluate(np.array([0, 1, 1]), np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.5]]))["auc"]
        1.0
    """
    _check(labels, logits)
    classes = logits.shape[1]
    support = np.bincount(labels.astype(np.int64), minlength=classes)
    facts = {
        "support": support.tolist(),
        "classes_absent": np.flatnonzero(support == 0).tolist(),
        "count": len(labels),
    }
    if len(labels) == 0 or not np.isfinite(logits).all():
        return {**dict.fromkeys(_SCORES), **facts}
    exact = logits.astype(np.float64)
    confusion = _confusion(labels, exact.argmax(axis=1), classes)
    scores = {
        "auc": _auc(labels, softmax(exact), support),
        "auc_logits": _auc(labels, exact, support),
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "balanced_accuracy": _balanced_accuracy(confusion),
        "f1": _macro_f1(confusion),
        "kappa": _quadratic_kappa(confusion),
        "loss": _cross_entropy(labels, exact),
        "confusion_matrix": confusion.tolist(),
    }
    return {**scores, **facts}


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Turn logits into probabilities, in float64.

    Args:
        logits: Scores, shape (N, C).

    Returns:
        Probabilities, shape (N, C); each row sums to 1.
    """
    exact = logits.astype(np.float64)
    powers = np.exp(exact - exact.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def _check(labels: NDArray[np.integer[Any]], logits: NDArray[np.floating[Any]]) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"labels (N,) and logits (N, C) expected, got {labels.shape} and {logits.shape}")
    if logits.shape[1] < 2:
        raise ValueError(f"at least two classes expected, got logits of shape {logits.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels have to be integers, got {labels.dtype}")
    if len(labels) and not (labels.min() >= 0 and labels.max() < logits.shape[1]):
        raise ValueError(f"labels range from {labels.min()} to {labels.max()}, but there are {logits.shape[1]} classes")


def _auc(labels: NDArray[np.integer[Any]], scores: NDArray[np.float64], support: NDArray[np.int64]) -> float | None:
    from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped, unused-ignore]  # half a second to import

    present = np.flatnonzero(support)
    if len(present) < 2:
        return None
    if scores.shape[1] == 2:
        present = np.array([1])
    return float(np.mean([roc_auc_score(labels == index, scores[:, index]) for index in present]))


def _confusion(
    labels: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], classes: int
) -> NDArray[np.int64]:
    cells = np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)


def _balanced_accuracy(confusion: NDArray[np.int64]) -> float:
    support = confusion.sum(axis=1)
    present = support > 0
    return float(np.mean(np.diag(confusion)[present] / support[present]))


def _macro_f1(confusion: NDArray[np.int64]) -> float:
    # 2 TP / (2 TP + FP + FN): labels and predictions of a class together make up the denominator.
    support = confusion.sum(axis=1)
    total = support + confusion.sum(axis=0)
    present = support > 0
    return float(np.mean(2 * np.diag(confusion)[present] / total[present]))


def _quadratic_kappa(confusion: NDArray[np.int64]) -> float | None:
    index = np.arange(len(confusion), dtype=np.float64)
    weights = (index[:, None] - index[None, :]) ** 2
    by_chance = np.outer(confusion.sum(axis=1), confusion.sum(axis=0)) / confusion.sum()
    expected = float((weights * by_chance).sum())
    if expected == 0:
        return None
    return 1.0 - float((weights * confusion).sum()) / expected


def _cross_entropy(labels: NDArray[np.integer[Any]], logits: NDArray[np.float64]) -> float | None:
    largest = logits.max(axis=1)
    log_total = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    loss = float(np.mean(log_total - logits[np.arange(len(labels)), labels]))
    return loss if math.isfinite(loss) else None
