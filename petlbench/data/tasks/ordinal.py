"""One class an image, of two or more that have an order, such as the grades of a disease."""

from petlbench.data.tasks.base import TaskType
from petlbench.metrics.groups import MOST_SEVERE

ORDINAL = TaskType(name="ordinal", title="ordinal", ordered=True, groups=MOST_SEVERE)
