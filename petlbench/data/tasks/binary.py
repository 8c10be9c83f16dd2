"""One class an image, of two; the second is the positive one."""

from petlbench.data.tasks.base import Labels, TaskType
from petlbench.metrics.groups import MOST_SEVERE

BINARY = TaskType(name="binary", title="binary", labels=Labels(most=2), groups=MOST_SEVERE)
