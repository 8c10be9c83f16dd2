"""From a report's file and stored results to the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from petlbench.core.catalog import Catalog
from petlbench.core.progress import Progress
from petlbench.metrics.efficiency import REFERENCE
from petlbench.report.audits import add_baselines, find_audits, marks_of
from petlbench.report.columns import OPTIONAL, find_metric, make_columns
from petlbench.report.commands import reference_command
from petlbench.report.context import Context
from petlbench.report.document import Document, Figure, Table
from petlbench.report.grid import build_grid
from petlbench.report.kinds.beside_papers import compare_with_papers
from petlbench.report.kinds.methods_table import describe_settings, methods_table
from petlbench.report.kinds.papers import paper_table
from petlbench.report.kinds.papers_recomputed import printed_report
from petlbench.report.request import Asked, Material, gather, paper_of
from petlbench.report.selection import check_alike, check_cells, common_settings
from petlbench.report.spec import ReportCard
from petlbench.results.stored import Stored

__all__ = ["build_report"]


def build_report(card: ReportCard, asked: Asked, catalog: Catalog, progress: Progress | None = None) -> Document:
    """Make a report.

    Args:
        card: The report.
        asked: What the user asks for.
        catalog: The catalogues.
        progress: Told what goes on.

    Raises:
        InputError: When there are no results for it, or none that one table may hold.
    """
    paper = paper_of(asked.results)
    if paper is not None:
        return _printed(card, paper, _titles(catalog))
    if card.kind == "resolutions" and not asked.measured:
        from petlbench.report.kinds.memory_by_resolution import predicted_report

        return predicted_report(card, asked, catalog, progress or Progress())
    return _BUILDERS[card.kind](gather(card, asked, catalog, progress or Progress()))


def _printed(card: ReportCard, paper: str, titles: dict[str, str]) -> Document:
    from petlbench.report.kinds.tradeoff import paper_figure

    document, table = printed_report(card.name, card.title, paper, titles), paper_table(paper, card.name)
    return replace(document, figures=(paper_figure(table, titles),)) if card.kind == "tradeoff" and table else document


def _methods(material: Material) -> Document:
    context, main = _main_table(material, material.card.columns)
    tables, figures, notes = _compared(material, context)
    papers = _papers(material, main, context)
    return _document(material, [main, *papers, *tables], figures, notes)


def _tradeoff(material: Material) -> Document:
    from petlbench.report.kinds.tradeoff import tradeoff_figure

    context, main = _main_table(material, material.card.columns)
    return _document(material, [main], [tradeoff_figure(context, material.asked.x or "memory", main.caption)], [])


def _resolutions(material: Material) -> Document:
    from petlbench.report.kinds.memory_by_resolution import measured_report

    return measured_report(material)


def _curves(material: Material) -> Document:
    from petlbench.report.kinds.curves import curve_figures

    check_alike(material.finished)
    check_cells(material.finished, lambda one: one.method)
    return _document(material, [], curve_figures(_context(material)), [])


def _budget(material: Material) -> Document:
    from petlbench.report.kinds.budget import budget_report

    return budget_report(material)


def _clinical(material: Material) -> Document:
    from petlbench.report.kinds.clinical import clinical_tables

    check_alike(material.finished)
    check_cells(material.finished, lambda one: one.method)
    tables, figures = clinical_tables(_context(material), material)
    return _document(material, tables, figures, [])


_BUILDERS: Mapping[str, Callable[[Material], Document]] = {
    "methods": _methods,
    "variants": _methods,
    "tradeoff": _tradeoff,
    "resolutions": _resolutions,
    "curves": _curves,
    "budget": _budget,
    "clinical": _clinical,
}


def _main_table(material: Material, keys: Sequence[str]) -> tuple[Context, Table]:
    """The table of methods or variants, once nothing in it is mixed."""
    context = _context(material)
    rows = [one for line in context.grid.lines for one in line.all_runs]
    check_alike(rows)
    titles = {one.run_id: line.title for line in context.grid.lines for one in line.all_runs}
    check_cells(rows, lambda one: titles[one.run_id])
    asked = [key for key in material.asked.columns if key not in keys]
    makers = make_columns([*keys, *asked], context)
    card, output = material.card, str(material.asked.output or "")
    table = methods_table(card.title, makers, context, output=output, variants_of=card.name if card.variants else "")
    return context, add_baselines(table, find_audits(material), context)


def _context(material: Material) -> Context:
    grid = build_grid(material.card, material.results, material.wanted, material.catalog)
    rows = [one for line in grid.lines for one in line.all_runs]
    needs = {name for key in material.asked.columns for name in OPTIONAL.get(key, (key,))}
    context = Context(
        grid,
        _like(material.references, rows),
        find_metric(material.catalog, material.asked.metric),
        material.asked.figure,
        marks_of(find_audits(material)),
        trials=material.trials() if needs & {"trials", "search_hours"} else (),
        reads=material.reads() if "test_reads" in needs else (),
    )
    if context.reference is not None or not rows:
        return context
    command = reference_command(rows, str(material.asked.output or ""))
    return replace(
        context, missing_reference=f"there is no run of {REFERENCE} in this setting", reference_command=command
    )


def _like(results: Sequence[Stored], rows: Sequence[Stored]) -> list[Stored]:
    """Results that share the setting of the rows, so that their memory compares."""
    if not rows:
        return []
    return [one for one in results if one.alike == rows[0].alike]


def _papers(material: Material, main: Table, context: Context) -> list[Table]:
    if not material.asked.compare:
        return []
    rows = [one for line in context.grid.lines for one in line.all_runs]
    settings = describe_settings(common_settings(rows)) if rows else "no runs"
    return compare_with_papers(material.card.name, main, context.grid, settings)


def _compared(material: Material, context: Context) -> tuple[list[Table], list[Figure], list[str]]:
    from petlbench.report.kinds.comparison import compare_lines

    return compare_lines(material, context)


def _document(material: Material, tables: Sequence[Table], figures: Sequence[Figure], notes: Sequence[str]) -> Document:
    return Document(
        material.card.name,
        material.card.title,
        tables,
        figures,
        notes,
        [dict(one.document) | {"folder": str(one.folder or "")} for one in material.results],
        material.source,
        _settings(material),
    )


def _settings(material: Material) -> dict[str, object]:
    asked = material.asked
    return {
        "results": asked.results,
        "study": asked.study,
        "setting": asked.setting,
        "where": dict(asked.where),
        "metric": asked.metric,
        "memory": asked.figure,
        **(common_settings(material.finished) if material.finished else {}),
    }


def _titles(catalog: Catalog) -> dict[str, str]:
    return {name: entry.title for kind in ("dataset", "method") for name, entry in catalog.entries(kind).items()}
