"""What a search of so many trials is expected to find.

Where any n of N trials are as likely to have been the first ones, the expected best of n is the sum over the sorted
values v_i of ``v_i C(i - 1, n - 1) / C(N, n)``: the unbiased estimate, without replacement. J. Dodge et al., "Show your
work", EMNLP 2019, introduced the curve, and R. Tang et al., "Showing your work doesn't always work", ACL 2020,
this estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Literal

from petlbench.core.errors import InputError
from petlbench.metrics.metric import Metric
from petlbench.report.cells import number_cell
from petlbench.report.columns import find_metric
from petlbench.report.document import Axis, Cell, Column, Figure, Row, Series, Table
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.spec import ReportKind
from petlbench.results.stored import Stored
from petlbench.results.table import searches

_SHOWN = (1, 2, 4, 8, 16, 32, 64, 128)
_CAPTION = (
    "Expected best validation score of n trials: the mean over all ways to choose n of those that were tried "
    "(Tang et al. 2020). "
    "It takes trials for exchangeable, as in random search; a sampler that learns does better late than early. "
    "A pruned trial counts with its best epoch, a failed one with the worst score that was seen."
)


def expected_best(values: Sequence[float], count: int, direction: Literal["higher", "lower"] = "higher") -> float:
    """The expected best of some values that are drawn without replacement: the largest, or the smallest."""
    ways, ordered = comb(len(values), count), sorted(values, reverse=direction == "lower")
    return sum(v * (comb(i, count - 1) / ways) for i, v in enumerate(ordered) if i >= count - 1)


def build(inputs: ReportInputs) -> Document:
    """Make the report of all searches that wrote to the folder of the results.

    Raises:
        InputError: When there is no trial.
    """
    metric = find_metric(inputs.catalog, inputs.metric_name)
    scores = _by_search(inputs, metric)
    if not scores:
        raise InputError(
            f"no trials of a search are stored in {inputs.request.results}",
            hint="petlbench sweep writes them there",
            kind="no_results",
        )
    titles = {method: inputs.titles.get(method, method) for method, _ in scores}
    figures, rows = [], []
    for dataset in sorted({dataset for _, dataset in scores}):
        searches = {method: values for (method, where), values in scores.items() if where == dataset}
        figures.append(_figure(dataset, searches, titles, metric))
        rows += [_row(f"{titles[method]} on {dataset}", method, values, metric) for method, values in searches.items()]
    most = max(map(len, scores.values()))
    columns = [
        Column("trials", "trials"),
        *(Column(f"best_of_{n}", f"best of {n}", "%", metric.direction) for n in _SHOWN if n <= most),
    ]
    card = inputs.card
    table = Table("main", card.title, columns, rows, _CAPTION, row_title="search")
    notes = inputs.passed_over()
    return Document(
        card.name, card.title, [table], figures, notes, source=inputs.source, settings={"metric": metric.name}
    )


BUDGET = ReportKind(name="budget", title="What a search finds by number of trials", build=build)


def _by_search(inputs: ReportInputs, metric: Metric) -> dict[tuple[str, str], list[float]]:
    """Scores of trials in percent, by method and dataset."""
    scores = {}
    for key, trials in searches(inputs.trials).items():
        values = [_best(trial, metric) for trial in trials]
        if numbers := [value for value in values if value is not None]:
            worst = min(numbers) if metric.direction == "higher" else max(numbers)
            scores[key] = [worst if value is None else value for value in values]
    return scores


def _best(stored: Stored, metric: Metric) -> float | None:
    curve, name = stored.document.get("curve") or (), f"val_{metric.name}"
    values = [100 * point[name] for point in curve if point.get(name) is not None]
    return (max if metric.direction == "higher" else min)(values, default=None)


def _figure(dataset: str, searches: dict[str, list[float]], titles: dict[str, str], metric: Metric) -> Figure:
    axes = (
        Axis("trials", "trials", "", "log"),
        Axis("score", f"expected best validation {metric.title}", "%", better=metric.direction),
    )
    series = []
    for method, values in searches.items():
        counts = list(range(1, len(values) + 1))
        best: list[float | None] = [expected_best(values, count, metric.direction) for count in counts]
        series.append(Series(method, titles[method], {"trials": [float(n) for n in counts], "score": best}))
    return Figure.of(dataset, "lines", f"What a search finds on {dataset}", axes, series, caption=_CAPTION)


def _row(title: str, method: str, values: Sequence[float], metric: Metric) -> Row:
    cells = {"trials": Cell(len(values), str(len(values)))}
    for count in _SHOWN:
        best = expected_best(values, count, metric.direction) if count <= len(values) else None
        cells[f"best_of_{count}"] = number_cell(best, 2, f"{len(values)} trials were tried")
    return Row(f"{method} {title}", title, cells)
