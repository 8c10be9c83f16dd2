"""From stored results to a report, or to two methods compared: the effect, its interval and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError, unknown_name
from petlbench.core.progress import Progress
from petlbench.data.tasks.base import metric_of
from petlbench.report.context import scored
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.papers import printed_report
from petlbench.report.selection import check_alike, check_cells
from petlbench.report.spec import DEFAULT_METRIC, ReportCard, ReportKind, ReportRequest
from petlbench.report.units import runs_by, titled
from petlbench.results.table import Results
from petlbench.statistics.comparison import Evidence
from petlbench.statistics.verdict import Comparison


def build_report(
    card: ReportCard, request: ReportRequest, catalog: Catalog, progress: Progress | None = None
) -> Document:
    """Make a report.

    Raises:
        InputError: When there are no results for it, or none that one table may hold.
    """
    inputs = ReportInputs(card, request, catalog, progress or Progress())
    kind = catalog.load("report_kind", card.kind, ReportKind)
    if request.unit == "group" and not kind.by_group:
        message = f"--unit group: a report of the kind '{card.kind}' is about images, or has no scores"
        raise InputError(message, hint="leave --unit out", kind="bad_setting")
    if request.x is not None and not kind.shows_cost:
        message = f"--x {request.x}: a report of the kind '{card.kind}' has no figure of scores against a cost"
        raise InputError(message, hint="petlbench report tradeoff has; or leave --x out", kind="bad_setting")
    if request.paper is None and request.scores is None:
        return kind.build(inputs)
    if kind.build_others is not None:
        return kind.build_others(inputs)
    if request.paper is None:
        message = f"--results {request.results}: the report '{card.name}' is not made of scores that others have"
        raise InputError(message, hint="suites are: petlbench list suites names them", kind="no_results")
    return printed_report(inputs, request.paper, kind)


def compare_methods(
    results: Results, methods: tuple[str, str], datasets: Sequence[str], request: ReportRequest, catalog: Catalog
) -> Comparison:
    """The difference of two methods' scores; over several datasets the mean of their differences.

    Args:
        results: The results.
        methods: The method a, and the method b that it is compared with.
        datasets: Names of datasets; empty for all that both methods were run on.
        request: Which score, and whether it counts images or groups.
        catalog: The catalogues.

    Returns:
        Score of a minus score of b as a fraction, with the interval that images, seeds and splits give it
        (`petlbench.statistics.comparison`).

    Raises:
        InputError: When a method has no finished run there, the runs are not comparable, or no split has both.
    """
    once = results.showing_test(False).runs
    runs = [run for run in once if run.finished and (not datasets or run.dataset in datasets)]
    for name in methods:
        if all(run.method != name for run in runs):
            raise unknown_name("finished run of", name, {run.method for run in runs})
    metric = titled(metric_of(request.metric or DEFAULT_METRIC, catalog), request.unit)
    runs = runs_by(request.unit, [run for run in runs if run.method in methods], metric, catalog)
    check_alike(runs)
    check_cells(runs, lambda run: run.method)
    records = [record for run in runs if (record := scored(run, run.method, run.dataset, metric)) is not None]
    evidence = Evidence(records, metric)
    shared = [name for name in evidence.datasets if evidence.compare(*methods, name) is not None]
    if not shared:
        raise InputError(
            f"{methods[0]} and {methods[1]} share no split of a dataset, so nothing can be compared",
            hint="run both with the same --split and --split-seed",
            kind="nothing_shared",
        )
    comparison = evidence.compare(*methods, shared[0])
    average = evidence.average(*methods, shared) if len(shared) > 1 else None
    return average.here if average is not None else comparison  # type: ignore[return-value]  # it was seen to be there
