"""One class an image, of two; the second is the positive one."""

from petlbench.data.tasks.base import CLASSIFICATION_METRICS, ClassLabels, TaskType, class_strata, softmax

__all__ = ["BINARY"]

BINARY = TaskType(
    name="binary",
    title="binary",
    labels=ClassLabels(most=2),
    loss="cross_entropy",
    activation=softmax,
    metrics=CLASSIFICATION_METRICS,
    selection="auc",
    strata=class_strata,
)
