"""A study as MLflow is to keep it: a report's page to explore and its figures, written by a program of their own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from petlbench.core.catalog import Catalog
from petlbench.core.errors import PetlbenchError

_DEFAULT = "table1"


def page_program(report: str | None, output: Path, study: str, catalogs: Sequence[Path]) -> list[str]:
    """The program that writes the files of a study, as `petlbench.results.tracking.page.StudyPage` takes it.

    Args:
        report: The report whose runs the study has; None for the table of any study.
        output: Folder of all results.
        study: The study.
        catalogs: Folders with the user's own methods, datasets and reports.
    """
    return [__name__, report or _DEFAULT, str(output.absolute()), study, *(str(each.absolute()) for each in catalogs)]


def write_page(report: str, output: Path, study: str, catalogs: Sequence[Path], folder: Path) -> list[Path]:
    """The files of a study, written to a folder: a page, and each figure.

    Raises:
        InputError: When there are no results for the report, or none that one table may hold.
    """
    from petlbench.report.build import build_report
    from petlbench.report.formats import parse_formats, write_report
    from petlbench.report.spec import ReportRequest, load_report

    catalog = Catalog(catalogs)
    request = ReportRequest(results=str(output), study=study)
    document = build_report(load_report(catalog, report), request, catalog)
    names = "html,png" if document.figures else "html"
    return write_report(document, parse_formats(names, None, catalog), folder)


def main() -> None:
    """Write the files of the study that the command line names."""
    report, output, study, *catalogs, folder = sys.argv[1:]
    try:
        write_page(report, Path(output), study, [Path(each) for each in catalogs], Path(folder))
    except PetlbenchError as error:
        sys.exit(error.message)
