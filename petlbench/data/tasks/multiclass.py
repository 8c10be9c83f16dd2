"""One class an image, of two or more."""

from petlbench.data.tasks.base import TaskType

MULTICLASS = TaskType(name="multiclass", title="multi-class")
