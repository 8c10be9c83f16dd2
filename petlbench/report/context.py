"""What the columns of a table draw from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from petlbench.metrics.classification import AUC
from petlbench.metrics.metric import Metric
from petlbench.report.cells import average_cell, score_cell
from petlbench.report.document import Cell
from petlbench.report.grid import Grid, Line, peak
from petlbench.results.stored import Stored
from petlbench.results.table import searches
from petlbench.statistics.ranks import fronts

if TYPE_CHECKING:
    from petlbench.statistics.comparison import Evidence
    from petlbench.statistics.runs import Scored

__all__ = ["Context", "scored"]


@dataclass(frozen=True)
class Context:
    """What is known of a table's results.

    Args:
        grid: Its rows.
        references: Finished runs of ``full`` in the same setting, of any study: what PME refers to.
        metric: The score that is shown.
        figure: The figure of memory that is shown: allocated, reserved, process or resident.
        flagged: Datasets that an audit marked, with their marks.
        trials: Trials of searches.
        reads: Readings of test splits.
        missing_reference: Why there is no PME; empty where there is one.
        reference_command: The command that would change that; empty likewise.
    """

    grid: Grid
    references: Sequence[Stored]
    metric: Metric = AUC
    figure: str = "allocated"
    flagged: Mapping[str, Sequence[str]] = field(default_factory=dict)
    trials: Sequence[Stored] = ()
    reads: Sequence[Mapping[str, Any]] = ()
    missing_reference: str = ""
    reference_command: str = ""

    @cached_property
    def reference(self) -> int | None:
        """Peak memory of ``full`` in bytes."""
        return peak(self.references, self.figure)

    @property
    def clean_datasets(self) -> list[str]:
        """Datasets that no audit marked as a shortcut."""
        return [name for name in self.grid.datasets if "shortcut" not in self.flagged.get(name, ())]

    @cached_property
    def tried(self) -> Counter[str]:
        """The number of trials of each method."""
        return Counter(run.method for runs in searches(self.trials).values() for run in runs)

    @cached_property
    def evidence(self) -> Evidence:
        """The finished runs of all rows, which take the place of methods; predictions are read when something asks."""
        from petlbench.statistics.comparison import Evidence

        records = [
            record
            for line in self.grid.lines
            for name, runs in line.runs.items()
            for run in runs
            if (record := scored(run, line.key, name, self.metric.name)) is not None
        ]
        return Evidence(records, self.metric)

    def cell(self, line: Line, dataset: str) -> Cell:
        """A row's score on a dataset, in percent."""
        return self._cells[line.key, dataset]

    @cached_property
    def _cells(self) -> dict[tuple[str, str], Cell]:
        return {
            (line.key, name): score_cell(
                self.evidence.cell(line.key, name), expected=self.grid.seeds, reason=line.reasons.get(name, "")
            )
            for line in self.grid.lines
            for name in self.grid.datasets
        }

    @cached_property
    def averages(self) -> dict[str, Cell]:
        """The mean over all datasets of each row, in percent."""
        return {line.key: self.average_of(line, self.grid.datasets) for line in self.grid.lines}

    @cached_property
    def fronts(self) -> dict[str, int]:
        """The Pareto front of each row: by average, memory, parameters and time."""
        points = {line.key: self._costs(line) for line in self.grid.lines}
        return fronts({key: point for key, point in points.items() if point is not None})

    def average_of(self, line: Line, datasets: Sequence[str]) -> Cell:
        """The mean of a row over some datasets, in percent."""
        cells = [self.cell(line, name) for name in datasets]
        by_repeat: dict[tuple[int, str], list[float]] = {}
        for name in datasets:
            for run in line.runs.get(name, ()):
                if (score := run.score(self.metric.name)) is not None:
                    index = str(run.config["split"]).partition("/")[2]
                    by_repeat.setdefault((run.seed, index), []).append(100 * score)
        whole = [fmean(scores) for scores in by_repeat.values() if len(scores) == len(datasets)]
        return average_cell(cells, whole, [self.grid.titles[name] for name in datasets])

    def _costs(self, line: Line) -> tuple[float, ...] | None:
        average = self.averages[line.key].value
        costs = (average, line.memory(self.figure), line.parameters, line.seconds)
        if None in costs:
            return None
        score, *others = (float(cost) for cost in costs if cost is not None)
        return (-score if self.metric.direction == "higher" else score, *others)


def scored(run: Stored, row: str, dataset: str, metric: str) -> Scored | None:
    """A finished run as the statistics see it; None where it has no such score."""
    from petlbench.statistics.runs import Scored

    score = run.score(metric)
    if score is None:
        return None
    images = run.document.get("data", {}).get("images") or {}
    test_to_train = images["test"] / images["train"] if images.get("test") and images.get("train") else None
    interval = (run.document.get("intervals") or {}).get("test", {}).get(metric)
    read = partial(run.predictions, "test")
    return Scored(row, dataset, run.seed, run.split, score, read, test_to_train, interval)
