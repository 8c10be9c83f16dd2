"""What the epoch of a run is chosen by, on its validation images."""

from __future__ import annotations

from collections.abc import Sequence

from petlbench.core.config import RunConfig
from petlbench.core.progress import Progress
from petlbench.core.text import printable
from petlbench.metrics.metric import Metric
from petlbench.run.data import RunData
from petlbench.training.selection import Selection, metric_for, selection_of


def run_selection(config: RunConfig, data: RunData, metrics: Sequence[Metric], progress: Progress) -> Selection:
    """The selection that a config names; subgroups that are too small for it are said."""
    task, select = data.dataset.task, config.training.select
    metric = metric_for(select, task, metrics)
    selection = selection_of(select, metric, task, len(data.dataset.classes), data.records("val"))
    for name, count in selection.left_out.items():
        progress.say(f"{printable(name)} has too few images on validation ({count}) to be a worst group")
    return selection
