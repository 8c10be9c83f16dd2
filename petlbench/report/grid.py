"""Rows and cells of a report, each with its runs, or with the reason why it has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from petlbench.core.catalog import Catalog
from petlbench.report.spec import ReportCard, Variant
from petlbench.results.stored import Stored
from petlbench.results.table import PlannedRuns, reason_of

__all__ = ["Grid", "Line", "build_grid", "peak"]


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

    @property
    def ratios(self) -> list[float]:
        """Learnable parameters of its runs over all of them, as fractions."""
        return [run.document["parameters"]["ratio"] for run in self.all_runs if run.document.get("parameters")]

    @property
    def parameters(self) -> int | None:
        """The number of parameters that it learns; the most, where heads differ."""
        documents = [run.document.get("parameters") for run in self.all_runs]
        return max((parameters["learnable"] for parameters in documents if parameters), default=None)

    @property
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

    def memory(self, figure: str, phase: str | None = None) -> int | None:
        """The most that its runs took, in bytes."""
        return peak(self.all_runs, figure, phase)


@dataclass(frozen=True)
class Grid:
    """All rows of a report.

    Args:
        lines: The rows.
        datasets: Names of the datasets, in the order of their columns.
        titles: What the datasets are called in tables.
        seeds: Number of runs that a cell should have; None where nobody said.
    """

    lines: Sequence[Line]
    datasets: Sequence[str]
    titles: Mapping[str, str]
    seeds: int | None = None

    @property
    def all_runs(self) -> list[Stored]:
        """The runs of all rows."""
        return [run for line in self.lines for run in line.all_runs]


def peak(runs: Iterable[Stored], figure: str, phase: str | None = None) -> int | None:
    """The most that runs took, in bytes."""
    return max((size for run in runs if (size := run.memory(figure, phase)) is not None), default=None)


def build_grid(card: ReportCard, results: Sequence[Stored], planned: PlannedRuns, catalog: Catalog) -> Grid:
    """Sort results into rows and cells."""
    titles = {name: entry.title for name, entry in catalog.entries("method").items()}
    if card.variants:
        plans = [(v.title, v.title, v.method, _of_variant(v, results), v.published) for v in card.variants]
    else:
        methods = _ordered(card.study.methods, planned.methods, (run.method for run in results))
        plans = [
            (name, titles.get(name, name), name, [run for run in results if run.method == name], name)
            for name in methods
        ]
    datasets = _ordered(card.study.datasets, planned.datasets, (run.dataset for run in results))
    lines = []
    for key, title, method, mine, published in plans:
        runs = {name: [run for run in mine if run.dataset == name and run.finished] for name in datasets}
        reasons = {name: _why(method, [run for run in mine if run.dataset == name], name, planned) for name in datasets}
        lines.append(Line(key, title, method, runs, reasons, published or key))
    most = max((len(runs) for line in lines for runs in line.runs.values()), default=None)
    return Grid(lines, datasets, _titles(datasets, results, catalog), planned.seeds or most)


def _of_variant(variant: Variant, results: Sequence[Stored]) -> list[Stored]:
    return [
        run
        for run in results
        if run.method == variant.method
        and variant.preload in (None, run.config["preload"])
        and all(run.config["method_settings"].get(name) == value for name, value in variant.settings.items())
    ]


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
    return reason_of(None)


def _titles(datasets: Sequence[str], results: Sequence[Stored], catalog: Catalog) -> dict[str, str]:
    stored = {run.dataset: str(run.document.get("data", {}).get("title") or run.dataset) for run in reversed(results)}
    cards = {name: entry.title for name, entry in catalog.entries("dataset").items()}
    titles = {name: stored.get(name) or cards.get(name, name) for name in datasets}
    counts = Counter(titles.values())
    return {name: name if counts[title] > 1 else title for name, title in titles.items()}
