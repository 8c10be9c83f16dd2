"""Rows and cells of a report, each with its runs or the reason why it has none; and what its columns draw from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import fsum
from statistics import fmean
from typing import TYPE_CHECKING, Any

from petlbench.core.catalog import Catalog
from petlbench.metrics.efficiency import REFERENCE
from petlbench.metrics.metric import Metric
from petlbench.report.cells import average_cell, score_cell
from petlbench.report.document import Cell, Row
from petlbench.report.spec import ReportCard, Variant
from petlbench.report.tasks import Average, Groups, averages, equal_weights, tasks_of
from petlbench.results.predictions import Predictions
from petlbench.results.stored import Stored
from petlbench.results.table import PlannedRuns, reason_of, searches
from petlbench.statistics.ranks import fronts

if TYPE_CHECKING:
    from petlbench.statistics.comparison import Evidence
    from petlbench.statistics.runs import Scored


@dataclass(frozen=True)
class Line:
    """A row before it has cells.

    Args:
        key: Its stable name.
        title: What stands in front of it.
        method: Name of the method.
        runs: Finished runs by dataset.
        reasons: Why there are none, by dataset; and why some are missing, where others are there.
        published: Its label in the papers' tables.
    """

    key: str
    title: str
    method: str
    runs: Mapping[str, Sequence[Stored]] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    published: str = ""

    @property
    def all_runs(self) -> list[Stored]:
        """Its runs on all datasets."""
        return [run for runs in self.runs.values() for run in runs]

    def figures(self, name: str) -> list[float]:
        """What its runs have of a figure of the results table."""
        return [figure for run in self.all_runs if (figure := run.figure(name)) is not None]

    @property
    def parameters(self) -> int | None:
        """The number of parameters that it learns; the most, where heads differ."""
        return max(map(int, self.figures("learnable_parameters")), default=None)

    @cached_property
    def seconds(self) -> float | None:
        """Seconds of one run, preloading counted: the mean over datasets.

        Runs share preloaded features, so that only the first of them shows what they cost: it counts for each run.
        """
        by_dataset = [
            fmean(run.seconds("run") - run.seconds("preload") for run in runs)
            + max(run.seconds("preload") for run in runs)
            for runs in self.runs.values()
            if runs
        ]
        return fmean(by_dataset) if by_dataset else None

    def row(self, cells: Mapping[str, Cell]) -> Row:
        """The row with its cells."""
        return Row(self.key, self.title, cells, runs=tuple(run.run_id for run in self.all_runs))

    def memory(self, figure: str, phase: str | None = None) -> int | None:
        """The most that its runs took, in bytes; several columns and figures ask for it."""
        if (figure, phase) not in self._peaks:
            self._peaks[figure, phase] = peak(self.all_runs, figure, phase)
        return self._peaks[figure, phase]

    @cached_property
    def _peaks(self) -> dict[tuple[str, str | None], int | None]:
        return {}


@dataclass(frozen=True)
class Grid:
    """All rows of a report.

    Args:
        lines: The rows.
        datasets: Names of the datasets, in the order of their columns.
        titles: What the datasets are called in tables.
        seeds: Number of runs that a cell should have; None where nobody said.
        groups: Of a suite: its groups, whose tasks are the datasets.
    """

    lines: Sequence[Line]
    datasets: Sequence[str]
    titles: Mapping[str, str]
    seeds: int | None = None
    groups: Groups = ()

    @property
    def all_runs(self) -> list[Stored]:
        """The runs of all rows."""
        return [run for line in self.lines for run in line.all_runs]

    @property
    def suite_averages(self) -> list[Average]:
        """The means of a suite, over the tasks that any row has."""
        return averages(self.groups, {name for line in self.lines for name, runs in line.runs.items() if runs})


@dataclass(frozen=True)
class Context:
    """What is known of a table's results.

    Args:
        grid: Its rows.
        references: Finished runs of ``full`` in the same setting, of any study: what PME refers to.
        metric: The score that is shown.
        predictions: Reads what a run has kept of a split.
        figure: The figure of memory that is shown: allocated, reserved, process or resident.
        flagged: Datasets that an audit marked, with their marks.
        trials: Trials of searches.
        reads: Readings of test splits.
    """

    grid: Grid
    references: Sequence[Stored]
    metric: Metric
    predictions: Callable[[Stored, str], Predictions | None]
    figure: str
    flagged: Mapping[str, Sequence[str]]
    trials: Sequence[Stored] = ()
    reads: Sequence[Mapping[str, Any]] = ()

    @cached_property
    def reference(self) -> int | None:
        """Peak memory of ``full`` in bytes."""
        return peak(self.references, self.figure)

    @property
    def missing_reference(self) -> str:
        """Why there is no PME; empty where there is one."""
        is_there = self.reference is not None or not self.grid.all_runs
        return "" if is_there else f"there is no run of {REFERENCE} in this setting"

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
            if (record := scored(run, line.key, name, self.metric, self.predictions)) is not None
        ]
        return Evidence(records, self.metric)

    @cached_property
    def metric_title(self) -> str:
        """The score's title, and which form of it the runs have, where there are several."""
        if not self.metric.form:
            return self.metric.title
        forms: dict[str, set[str]] = {}
        for line in self.grid.lines:
            for name, runs in line.runs.items():
                for run in runs:
                    forms.setdefault(score_form(run, self.metric), set()).add(self.grid.titles[name])
        several = len(forms) > 1
        texts = [f"{form} on {', '.join(sorted(titles))}" if several else form for form, titles in forms.items()]
        return f"{self.metric.title} ({'; '.join(texts)})" if texts else self.metric.title

    def cell(self, line: Line, dataset: str) -> Cell:
        """A row's score on a dataset, in percent."""
        return self._cells[line.key, dataset]

    @cached_property
    def _cells(self) -> dict[tuple[str, str], Cell]:
        return {
            (line.key, name): score_cell(
                self.evidence.cell(line.key, name),
                expected=self.grid.seeds,
                reason=line.reasons.get(name, ""),
                few_validation=min(filter(None, (run.few_validation for run in line.runs.get(name, ()))), default=0),
            )
            for line in self.grid.lines
            for name in self.grid.datasets
        }

    @cached_property
    def averages(self) -> dict[str, Cell]:
        """The mean over all datasets of each row, in percent."""
        return {line.key: self.average_of(line, equal_weights(self.grid.datasets)) for line in self.grid.lines}

    @cached_property
    def fronts(self) -> dict[str, int]:
        """The Pareto front of each row: by average, memory, parameters and time."""
        points, sign = {}, -1 if self.metric.direction == "higher" else 1
        for line in self.grid.lines:
            costs = (self.averages[line.key].value, line.memory(self.figure), line.parameters, line.seconds)
            if None not in costs:
                score, *others = (float(cost) for cost in costs if cost is not None)
                points[line.key] = (sign * score, *others)
        return fronts(points)

    def average_of(self, line: Line, weights: Mapping[str, float]) -> Cell:
        """The weighted mean of a row over some datasets, in percent; the weights add up to 1."""
        cells = {name: self.cell(line, name) for name in weights}
        by_repeat: dict[tuple[int, str, int], dict[str, float]] = {}
        for name in weights:
            for run in line.runs.get(name, ()):
                if (score := run.score(self.metric.name)) is not None:
                    index = str(run.config["split"]).partition("/")[2]
                    by_repeat.setdefault((run.seed, index, run.draw), {})[name] = 100 * score
        whole = [
            fsum(weights[name] * score for name, score in scores.items())
            for scores in by_repeat.values()
            if len(scores) == len(weights)
        ]
        return average_cell(cells, weights, whole, self.grid.titles)


def scored(
    run: Stored,
    row: str,
    dataset: str,
    metric: Metric,
    predictions: Callable[[Stored, str], Predictions | None] = Stored.predictions,
) -> Scored | None:
    """A finished run as the statistics see it; None where it has no such score."""
    from petlbench.statistics.runs import Scored

    score = run.score(metric.name)
    if score is None:
        return None
    images = run.document.get("data", {}).get("images") or {}
    test_to_train = images["test"] / images["train"] if images.get("test") and images.get("train") else None
    interval = (run.document.get("intervals") or {}).get("test", {}).get(metric.name)
    read = partial(predictions, run, "test")
    return Scored(row, dataset, run.seed, run.split, score, read, test_to_train, interval, score_form(run, metric))


def score_form(run: Stored, metric: Metric) -> str:
    """Which form of a score a run has, in words; empty where there is one form only."""
    forms = run.document.get("data", {}).get("score_forms")
    if forms is None and metric.ordered is not None:
        return metric.ordered.form  # as all runs had it before there were two
    return metric.form if forms is None else str(forms.get(metric.name, ""))


def peak(runs: Iterable[Stored], figure: str, phase: str | None = None) -> int | None:
    """The most that runs took, in bytes."""
    return max((size for run in runs if (size := run.memory(figure, phase)) is not None), default=None)


def build_grid(card: ReportCard, results: Sequence[Stored], planned: PlannedRuns, catalog: Catalog) -> Grid:
    """Sort results into rows and cells."""
    by_method: dict[str, list[Stored]] = {}
    for run in results:
        by_method.setdefault(run.method, []).append(run)
    if card.variants:
        plans = []
        for row in card.variants:
            runs_of = [run for run in by_method.get(row.method, ()) if row.preload in (None, run.config["preload"])]
            matching = [run for run in runs_of if row.settings.items() <= run.config["method_settings"].items()]
            plans.append((row.title, row, matching))
    else:
        titles = {name: entry.title for name, entry in catalog.entries("method").items()}
        names = _ordered(card.study.methods, planned.methods, by_method)
        plans = [(name, Variant(title=titles.get(name, name), method=name), by_method.get(name, [])) for name in names]
    headings = {task.key: task.heading for task in tasks_of(card.groups)}
    datasets = list(headings) or _ordered(card.datasets, planned.datasets, (run.dataset for run in results))
    lines = []
    for key, row, mine in plans:
        by_dataset = {name: [run for run in mine if run.dataset == name] for name in datasets}
        runs = {name: [run for run in members if run.finished] for name, members in by_dataset.items()}
        reasons = {name: _why(row.method, members, name, planned) for name, members in by_dataset.items()}
        lines.append(Line(key, row.title, row.method, runs, reasons, row.published or key))
    most = max((len(runs) for line in lines for runs in line.runs.values()), default=None)
    titles = headings or _titles(datasets, results, catalog)
    return Grid(lines, datasets, titles, planned.seeds or most, card.groups)


def _ordered(first: Sequence[str], second: Sequence[str], results: Iterable[str]) -> list[str]:
    """Names of results or of plans, in the report's order, then in the study's, then by name."""
    present = set(results)
    named = dict.fromkeys([*(name for name in first if name in present or name in second), *second])
    return [*named, *sorted(present - set(named))]


def _why(method: str, runs: Sequence[Stored], dataset: str, planned: PlannedRuns) -> str:
    """Why runs are missing: as their results say, as their study says, or because there was none."""
    unfinished = [run for run in runs if not run.finished]
    if unfinished:
        error = unfinished[0].document.get("error") or {}
        return reason_of(unfinished[0].status, str(error.get("message", "")))
    done = {run.seed for run in runs}
    for (*cell, seed), reason in planned.reasons.items():
        if cell == [method, dataset] and seed not in done and reason != "finished":
            return reason
    if runs and not any("test" in run.document["metrics"] for run in runs):
        return "the dataset has no test split"
    return reason_of(None)


def _titles(datasets: Sequence[str], results: Sequence[Stored], catalog: Catalog) -> dict[str, str]:
    stored = {run.dataset: str(run.document.get("data", {}).get("title") or run.dataset) for run in reversed(results)}
    cards = {name: entry.title for name, entry in catalog.entries("dataset").items()}
    titles = {name: stored.get(name) or cards.get(name, name) for name in datasets}
    counts = Counter(titles.values())
    return {name: name if counts[title] > 1 else title for name, title in titles.items()}
