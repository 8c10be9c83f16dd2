"""Suites: methods on the tasks of a suite in their groups, beside what papers print, or of scores that others have."""

from __future__ import annotations

from dataclasses import replace

from petlbench.core.errors import InputError
from petlbench.report.alignment import align
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.comparison import compare_lines
from petlbench.report.kinds.methods import main_table
from petlbench.report.kinds.papers import check_request
from petlbench.report.kinds.suite_print import beside_print, contradictions_table, differences_table, scores_table
from petlbench.report.published_scores import FOLDER, read_published
from petlbench.report.scores import ScoreTable, read_scores
from petlbench.report.spec import ReportKind


def build(inputs: ReportInputs) -> Document:
    """Make the table of a suite, what papers print beside, and the comparison of rows."""
    main, context = main_table(inputs), inputs.context
    printed = [beside_print(main, context, _comparable(inputs))] if inputs.request.compare else []
    tables, figures, notes, verdict = compare_lines(inputs, context)
    notes += ["Nothing is printed of these methods." for table in printed if not table.rows]
    document = inputs.document([main, *(table for table in printed if table.rows), *tables], figures, notes)
    return replace(document, verdict=verdict)


def build_others(inputs: ReportInputs) -> Document:
    """Make the table of a suite from scores that others have: a CSV's, or those that papers print."""
    check_request(inputs.request)
    card, request = inputs.card, inputs.request
    if request.scores is not None:
        title, source = f"{card.title}, as others measured it", str(request.scores)
        scores = read_scores(request.scores, card.groups)
    else:
        title, source = f"{card.title}, as it is printed", f"reports/{FOLDER}/{card.name}.toml"
        scores = _published(inputs)
    tables = [
        scores_table(title, scores, card.groups, inputs.metric),
        differences_table(scores, card.groups),
        contradictions_table(scores, card.groups),
    ]
    return Document(
        card.name,
        title,
        [align(table, request.decimals) for table in tables if table.rows],
        notes=scores.notes,
        source=source,
        settings={"results": request.results, "rows": len(scores.rows)},
    )


SUITE = ReportKind(
    name="suite", title="Suite of tasks", build=build, by_group=True, needs=("groups",), build_others=build_others
)


def _comparable(inputs: ReportInputs) -> ScoreTable:
    """What papers print of the suite.

    Raises:
        InputError: When our scores are others than the printed ones, or nothing is known to be printed.
    """
    card, request = inputs.card, inputs.request
    if inputs.metric_name != card.metric or request.unit != "image":
        message = f"--compare papers: what is printed of '{card.name}' is {card.metric} by image"
        raise InputError(message, hint="leave --metric and --unit out, or --compare", kind="bad_setting")
    return _published(inputs)


def _published(inputs: ReportInputs) -> ScoreTable:
    """What papers print of the suite.

    Raises:
        InputError: When nothing is known to be printed of it, or another paper is asked for.
    """
    name, paper = inputs.card.name, inputs.request.paper
    file = inputs.catalog.find("report", name).file.parent / FOLDER / f"{name}.toml"
    scores = read_published(file, inputs.card.groups)
    if scores is None:
        message = f"nothing is known that papers print of the suite '{name}'"
        raise InputError(message, hint=f"{file} would have it; reports/README.md says how", kind="no_results")
    if paper not in (None, name):
        message = f"--results papers:{paper} has no figures for the report '{name}'"
        raise InputError(message, hint=f"there are: report {name} --results papers:{name}", kind="no_results")
    return scores
