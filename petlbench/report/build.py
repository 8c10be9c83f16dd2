"""From a report's file and stored results to the report."""

from __future__ import annotations

from petlbench.core.catalog import Catalog
from petlbench.core.progress import Progress
from petlbench.report.document import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.papers_recomputed import printed_report
from petlbench.report.registry import ReportKind
from petlbench.report.spec import ReportCard, ReportRequest

__all__ = ["build_report"]


def build_report(
    card: ReportCard, request: ReportRequest, catalog: Catalog, progress: Progress | None = None
) -> Document:
    """Make a report.

    Raises:
        InputError: When there are no results for it, or none that one table may hold.
    """
    inputs = ReportInputs(card, request, catalog, progress or Progress())
    kind = catalog.load("report_kind", card.kind, ReportKind)
    return kind.build(inputs) if request.paper is None else printed_report(inputs, request.paper, kind)
