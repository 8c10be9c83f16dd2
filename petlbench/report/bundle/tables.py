"""The tables of a bundle: made of its own results, when it is packed and when it is verified."""

from __future__ import annotations

from dataclasses import replace

from petlbench.core.catalog import Catalog
from petlbench.core.progress import Progress
from petlbench.report.build import build_report
from petlbench.report.bundle.opened import Bundle
from petlbench.report.formats import Document
from petlbench.report.spec import ReportRequest, load_report


def make_report(bundle: Bundle, name: str, catalog: Catalog, progress: Progress | None = None) -> Document:
    """A report of a bundle's results, without what depends on where these lie.

    Raises:
        InputError: When there is no such report, or it cannot be made of the results.
    """
    request = ReportRequest(str(bundle.results), study=bundle.description.study)
    document = build_report(load_report(catalog, name), request, catalog, progress)
    tables = [replace(table, commands=()) for table in document.tables]
    return Document(document.name, document.title, tables, notes=document.notes, source="the results of this bundle")
