"""One class an image, of two or more that have an order, such as the grades of a disease."""

from petlbench.data.tasks.base import CLASSIFICATION_METRICS, ClassLabels, TaskType, class_strata, softmax

__all__ = ["ORDINAL"]

ORDINAL = TaskType(
    name="ordinal",
    title="ordinal",
    labels=ClassLabels(),
    loss="cross_entropy",
    activation=softmax,
    metrics=CLASSIFICATION_METRICS,
    selection="auc",
    strata=class_strata,
)
