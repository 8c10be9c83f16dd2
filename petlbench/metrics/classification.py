"""The metrics of a classifier that petlbench brings, one row each, and all of them of one split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.metrics import influence, intervals
from petlbench.metrics.metric import Labels, Logits, Metric, Numbers

_Value = TypeVar("_Value")


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Turn logits into probabilities, in float64.

    Args:
        logits: Scores, shape (N, C).

    Returns:
        Probabilities, shape (N, C); each row sums to 1.
    """
    exact = logits.astype(np.float64)
    powers = np.exp(exact - exact.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def macro_auc(labels: Labels, scores: Logits) -> float | None:
    """Area under the ROC curve, macro average of one class against the rest; with two classes that of class 1."""
    present = np.unique(labels)
    if len(present) < 2:
        return None
    if scores.shape[1] == 2:
        present = np.array([1])
    return float(np.mean([_auc(labels == index, scores[:, index]) for index in present]))


def _auc(positive: NDArray[np.bool_], scores: Logits) -> float:
    """Area under one ROC curve, to the last bit that of `sklearn.metrics.roc_auc_score`, in an eighth of its time.

    Every epoch of every run has two of them for each class, and sklearn spends nearly all on checks of its arguments.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of images with one and the same score
    true = np.cumsum(positive[order], dtype=np.float64)[ends]
    false = 1.0 + ends - true
    # As there, points on a straight line are left out: a sum of fewer terms is rounded otherwise.
    turns = np.concatenate([[True], (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0), [True]])
    true, false = (np.append(0.0, side[turns] if len(ends) > 2 else side) for side in (true, false))
    return float(np.trapezoid(true / true[-1], false / false[-1]))


def _confusion(labels: Labels, logits: Logits) -> NDArray[np.int64]:
    """Count images by true class (rows) and predicted class (columns), (C, C)."""
    classes = logits.shape[1]
    cells = np.bincount(labels.astype(np.int64) * classes + logits.argmax(axis=1), minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)


def _kappa(
    weights: Callable[[Numbers, Numbers], NDArray[Any]],
    disagreement: Callable[[Labels, Labels], influence.Disagreement],
) -> dict[str, Any]:
    """What the row of Cohen's kappa has (Cohen 1960, and 1968 with weights).

    Args:
        weights: Gives the weights of true classes, (C, 1), and predicted ones, (1, C), as (C, C).
        disagreement: Weighs labels and predictions in the same way.
    """

    def compute(labels: Labels, logits: Logits) -> float | None:
        counts = _confusion(labels, logits)
        index = np.arange(len(counts), dtype=np.float64)
        weight = weights(index[:, None], index[None, :])
        by_chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
        expected = float((weight * by_chance).sum())
        return None if expected == 0 else 1.0 - float((weight * counts).sum()) / expected

    parts = partial(influence.kappa_influences, disagreement=disagreement)
    interval = partial(intervals.kappa_interval, disagreement=disagreement)
    return {**mean_of(parts), "compute": compute, "interval": interval}


def _of_probabilities(function: Callable[..., _Value]) -> Callable[..., _Value]:
    return lambda labels, logits, *rest: function(labels, softmax(logits), *rest)


def mean_of(parts: Callable[[Labels, Logits], tuple[Numbers, Numbers]]) -> dict[str, Any]:
    """What a row has whose score is the mean of others: how it is computed, and what each image contributes.

    Args:
        parts: Gives the scores whose mean it is, (K,), and what each image contributes to the error of each, (K, N).
    """

    def compute(labels: Labels, logits: Logits) -> float | None:
        scores, _ = parts(labels, logits)
        return float(scores.mean()) if len(scores) else None

    def contribution(labels: Labels, logits: Logits) -> Numbers | None:
        scores, influences = parts(labels, logits)
        return np.asarray(influences.mean(axis=0)) if len(scores) else None

    return {"compute": compute, "contribution": contribution}


AUC = Metric(
    name="auc",
    title="AUC",
    direction="higher",
    compute=_of_probabilities(macro_auc),
    contribution=_of_probabilities(mean_of(influence.auc_influences)["contribution"]),
    interval=_of_probabilities(intervals.auc_interval),
)

AUC_LOGITS = Metric(
    name="auc_logits",
    title="AUC on logits",
    direction="higher",
    compute=macro_auc,
    contribution=mean_of(influence.auc_influences)["contribution"],
    interval=intervals.auc_interval,
)

ACCURACY = Metric(
    name="accuracy",
    title="accuracy",
    direction="higher",
    interval=intervals.accuracy_interval,
    **mean_of(influence.accuracy_influences),
)

BALANCED_ACCURACY = Metric(
    name="balanced_accuracy",
    title="balanced accuracy",
    direction="higher",
    interval=intervals.balanced_accuracy_interval,
    **mean_of(influence.recall_influences),
)

F1 = Metric(
    name="f1",
    title="F1",
    direction="higher",
    interval=intervals.f1_interval,
    **mean_of(influence.f1_influences),
)

KAPPA = Metric(
    name="kappa",
    title="kappa",
    direction="higher",
    form="unweighted",
    **_kappa(lambda true, predicted: true != predicted, influence.plain_disagreement),
    ordered=Metric(
        name="kappa",
        title="kappa",
        direction="higher",
        form="with quadratic weights",
        **_kappa(lambda true, predicted: (true - predicted) ** 2, influence.quadratic_disagreement),
    ),
)

LOSS = Metric(
    name="loss",
    title="loss",
    direction="lower",
    unit="nats",
    **mean_of(influence.loss_influences),
)

METRICS = tuple(row for row in list(globals().values()) if isinstance(row, Metric))
"""The rows above, in the order that they have in ``result.json``."""

_FACTS = ("confusion_matrix", "support", "classes_absent", "count", "ambiguous")


def load_metrics(
    catalog: Catalog, names: Sequence[str | Metric] = (), *, ordered: bool = False, labels: str = "class"
) -> tuple[Metric, ...]:
    """The rows of the metrics that apply to a task type, in its order, then the user's own by name.

    Args:
        catalog: The catalogues.
        names: The task type's metrics, names or rows; those above without them.
        ordered: Whether the task type's classes have an order.
        labels: The form of the task type's labels; the user's own metrics apply that take this form.

    Raises:
        InputError: When there is no such metric, a file cannot be imported, or a name means something else in
            ``result.json``.
    """
    shipped = {row.name: row for row in METRICS}
    own = [name for name, entry in catalog.entries("metric").items() if not entry.shipped]
    for name in own:
        if name in _FACTS:
            message = f"the metric '{name}' in {catalog.find('metric', name).file} would hide what a result has there"
            raise InputError(message, hint="give it another name", kind="duplicate_name")
    rows: dict[str, Metric] = {}
    for each in (*(names or shipped), *own):
        row = each if isinstance(each, Metric) else shipped.get(each) or catalog.load("metric", each, Metric)
        if row.takes == labels:
            rows.setdefault(row.name, row.ordered if ordered and row.ordered is not None else row)
    return tuple(rows.values())


def count_classes(labels: Labels, logits: Logits) -> dict[str, Any]:
    """Count the images of one split by class.

    Args:
        labels: True class of each image, shape (N,), integers in 0 .. C-1.
        logits: Scores before the softmax, shape (N, C), C at least 2.

    Returns:
        ``confusion_matrix``: C lists of C counts, rows are true classes; None where a logit is infinite or NaN, or
        there are no images. ``support``: C counts of labels. ``classes_absent``: class indices. ``count``: N.

    Raises:
        ValueError: The shapes do not fit, there are fewer than two classes, or a label is outside 0 .. C-1.
    """
    _check(labels, logits)
    support = np.bincount(labels.astype(np.int64), minlength=logits.shape[1])
    matrix = _confusion(labels, logits).tolist() if len(labels) and np.isfinite(logits).all() else None
    absent = np.flatnonzero(support == 0).tolist()
    return {"confusion_matrix": matrix, "support": support.tolist(), "classes_absent": absent, "count": len(labels)}


def evaluate(
    labels: Labels,
    logits: Logits,
    metrics: Sequence[Metric] = METRICS,
    count: Callable[[Labels, Logits], dict[str, Any]] = count_classes,
) -> dict[str, Any]:
    """Score the logits of one split.

    A class that no label of the split names has no AUC, recall or F1 of its own: the macro averages (``auc``,
    ``auc_logits``, ``balanced_accuracy``, ``f1``) are taken over the classes that are present, and ``classes_absent``
    lists the others. A score that is undefined is ``None``, never NaN: both AUCs when fewer than two classes are
    present, ``kappa`` when labels and predictions name one and the same class, every score when the split is empty or
    when any logit is infinite or NaN.

    The softmax of ``auc``, in float64, saturates: once the largest logit leads by about 37, its probability is exactly
    1, and images that the logits rank are ties; ``auc`` may then differ from ``auc_logits`` with two classes as well.

    Args:
        labels: Labels as the metrics take them; of one class an image that of each, shape (N,), integers in 0 .. C-1.
        logits: Scores before the softmax, shape (N, C); column 1 is the positive class when C is 2.
        metrics: The scores.
        count: What is said beside the scores: the task type's `count`.

    Returns:
        Each score by its metric's name; fractions, but for ``loss``: mean cross-entropy in nats. Beside them
        what `count` gives.

    Raises:
        ValueError: Labels and logits do not fit.

    Example:
        >>> evaluate(np.array([0, 1, 1]), np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.5]]))["auc"]
        1.0
    """
    facts = count(labels, logits)
    if len(labels) == 0 or not np.isfinite(logits).all():
        return {**dict.fromkeys(row.name for row in metrics), **facts}
    exact = logits.astype(np.float64)
    return {**{row.name: row.score(labels, exact) for row in metrics}, **facts}


def compute_intervals(
    labels: Labels,
    logits: Logits,
    groups: Sequence[str | None] | None = None,
    level: float = 0.95,
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, dict[str, Any] | None]:
    """Give the intervals of the scores that `evaluate` computes from the same arrays.

    Groups: images of a group resemble each other, so that they say less than as many images of their own. The design
    effect is the variance with groups drawn over that with images drawn (Obuchowski 1997), at least 1 and at most
    what groups of equal images would have; the counts of images are divided by it (Donner and Klar 2000).

    Args:
        labels: Labels as the metrics take them; of one class an image that of each, (N,), integers in 0 .. C-1.
        logits: Scores before the softmax, (N, C).
        groups: The group (the patient) of each image, None for an image without one; or None.
        level: Share of splits whose interval shall hold the true score.
        metrics: The scores; those without an interval are left out.

    Returns:
        By score, None where it is undefined, else: ``low``, ``high``: fractions. ``level``. ``method``: ``newcombe``,
        ``wilson`` or ``gamma``. ``positives``: images, or groups where there are some, of the rarest side that the
        score rests on. ``few``: whether these are fewer than 10, so that the interval is a hint only.
        ``design_effect``: 1 without groups.
    """
    rows = {row.name: row.interval for row in metrics if row.interval is not None}
    if len(labels) == 0 or not np.isfinite(logits).all():
        return dict.fromkeys(rows)
    units = influence.number_groups(groups, len(labels))
    return {name: interval(labels, logits, units, level) for name, interval in rows.items()}


def _check(labels: Labels, logits: Logits) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"labels (N,) and logits (N, C) expected, got {labels.shape} and {logits.shape}")
    if logits.shape[1] < 2:
        raise ValueError(f"at least two classes expected, got logits of shape {logits.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels have to be integers, got {labels.dtype}")
    if len(labels) and not (labels.min() >= 0 and labels.max() < logits.shape[1]):
        raise ValueError(f"labels range from {labels.min()} to {labels.max()}, but there are {logits.shape[1]} classes")
