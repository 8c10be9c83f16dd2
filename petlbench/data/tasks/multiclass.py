"""One class an image, of two or more."""

from petlbench.data.tasks.base import CLASSIFICATION_METRICS, ClassLabels, TaskType, class_strata, softmax

__all__ = ["MULTICLASS"]

MULTICLASS = TaskType(
    name="multiclass",
    title="multi-class",
    labels=ClassLabels(),
    loss="cross_entropy",
    activation=softmax,
    metrics=CLASSIFICATION_METRICS,
    selection="auc",
    strata=class_strata,
)
