"""What the columns of a table draw from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

from petlbench.metrics.classification import AUC
from petlbench.metrics.metric import Metric
from petlbench.report.cells import average_cell, score_cell
from petlbench.report.document import Cell
from petlbench.report.evidence import evidence_of
from petlbench.report.grid import Grid, Line
from petlbench.results.stored import Stored
from petlbench.statistics.pareto import fronts

if TYPE_CHECKING:
    from petlbench.statistics.comparison import Evidence

__all__ = ["Context", "memory_of", "parameters_of", "seconds_of"]


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
        return _peak(self.references, self.figure)

    @property
    def clean_datasets(self) -> list[str]:
        """Datasets that no audit marked as a shortcut."""
        return [name for name in self.grid.datasets if "shortcut" not in self.flagged.get(name, ())]

    @cached_property
    def tried(self) -> dict[str, int]:
        """The number of trials of each method: the runs of its searches with their first seed."""
        seeds: dict[tuple[str, str], list[int]] = {}
        for one in self.trials:
            seeds.setdefault((one.method, one.dataset), []).append(one.seed)
        found: dict[str, int] = {}
        for (method, _), mine in seeds.items():
            found[method] = found.get(method, 0) + mine.count(min(mine))
        return found

    @cached_property
    def evidence(self) -> Evidence:
        """What the statistics draw from."""
        return evidence_of(self.grid.lines, self.metric)

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
            for one in line.runs.get(name, ()):
                if (score := one.score(self.metric.name)) is not None:
                    index = str(one.config["split"]).partition("/")[2]
                    by_repeat.setdefault((one.seed, index), []).append(100 * score)
        whole = [fmean(scores) for scores in by_repeat.values() if len(scores) == len(datasets)]
        return average_cell(cells, whole, [self.grid.titles[name] for name in datasets])

    def _costs(self, line: Line) -> tuple[float, ...] | None:
        average = self.averages[line.key].value
        costs = (average, memory_of(line, self.figure), parameters_of(line), seconds_of(line))
        if None in costs:
            return None
        score, *others = (float(cost) for cost in costs if cost is not None)
        return (-score if self.metric.direction == "higher" else score, *others)


def memory_of(line: Line, figure: str, phase: str | None = None) -> int | None:
    """The most that a row's runs took, in bytes."""
    return _peak(line.all_runs, figure, phase)


def parameters_of(line: Line) -> int | None:
    """The number of parameters that a row learns; the most, where heads differ."""
    counts = [one.document["parameters"]["learnable"] for one in line.all_runs if one.document.get("parameters")]
    return max(counts, default=None)


def seconds_of(line: Line) -> float | None:
    """Seconds of one run, preloading counted: the mean over datasets.

    Runs share preloaded features, so that only the first of them shows what they cost: it counts for each run.
    """
    by_dataset = [
        fmean(one.seconds("total") - one.seconds("preload") for one in runs)
        + max(one.seconds("preload") for one in runs)
        for runs in line.runs.values()
        if runs
    ]
    return fmean(by_dataset) if by_dataset else None


def _peak(runs: Sequence[Stored], figure: str, phase: str | None = None) -> int | None:
    return max((size for one in runs if (size := one.memory(figure, phase)) is not None), default=None)
