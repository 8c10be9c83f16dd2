"""A paper's table, computed again from the paper's own figures, and what differs from print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from statistics import fmean
from typing import TYPE_CHECKING

from petlbench.core.errors import InputError
from petlbench.metrics.efficiency import pme, ppe
from petlbench.report.cells import mark_rows, number_cell
from petlbench.report.document import Cell, Column, Document, Row, Table
from petlbench.report.kinds.papers import PAPERS, PaperRow, PaperTable, paper_table

if TYPE_CHECKING:
    from petlbench.report.inputs import ReportInputs
    from petlbench.report.registry import ReportKind

__all__ = ["paper_columns", "printed_report", "recomputed"]

_CENT = Decimal("0.01")
_NAMES = {"average": "average of its cells", "ppe": "PPE", "pme": "PME"}
_PRINTED = {"average": "avg_auc", "ppe": "ppe", "pme": "pme"}


def printed_report(inputs: ReportInputs, paper: str, kind: ReportKind) -> Document:
    """Compute a paper's table again.

    Raises:
        InputError: When the paper is not known, or prints no such table.
    """
    card, titles = inputs.card, inputs.titles
    table = paper_table(paper, card.name)
    if table is None:
        commands = ", ".join(
            f"report {report} --results papers:{name}" for name, files in PAPERS.items() for report in files
        )
        raise InputError(
            f"--results papers:{paper} has no figures for the report '{card.name}'",
            hint=f"there are: {commands}",
            kind="no_results",
        )
    main = _main_table(table, titles)
    differences = _differences_table(table, main)
    return Document(
        card.name,
        f"{card.title}: {table.title}, computed again",
        (main, differences) if differences.rows else (main,),
        (kind.printed_figure(table, titles),) if kind.printed_figure is not None else (),
        () if differences.rows else ("Every figure that can be computed again agrees with print.",),
        source=f"reports/published/{table.file}.csv",
        settings={"results": f"papers:{paper}", **table.settings, "rows": len(table.rows)},
    )


def recomputed(row: PaperRow, table: PaperTable) -> dict[str, float]:
    """What follows from a row's printed figures, unrounded.

    PPE and PME are those of the printed average, which is the mean over datasets of figures that nobody printed.

    Returns:
        ``average``: of the printed cells, where there are any, in percent. ``ppe`` and ``pme``, where the row prints
        what they depend on.
    """
    figures = {"average": fmean(row.scores.values())} if row.scores else {}
    score = row.printed["avg_auc"]
    if "params" in row.printed:
        figures["ppe"] = ppe(score, row.printed["params"] / 100)
    return figures | {"pme": pme(score, row.printed["memory"] / table.full_memory)}


def paper_columns(table: PaperTable, titles: Mapping[str, str]) -> list[Column]:
    """The columns that a paper's table has, with those that are computed."""
    has_learnable = "params" in table.rows[0].printed
    return [
        *([Column("learnable", "learnable", "%", "lower")] if has_learnable else []),
        Column("memory", "memory", "MB", "lower"),
        *(Column(name, titles.get(name, name), "%", "higher") for name in table.datasets),
        Column("average", "average", "%", "higher"),
        *([Column("ppe", "PPE", "", "higher")] if has_learnable else []),
        Column("pme", "PME", "", "higher"),
    ]


def _main_table(table: PaperTable, titles: Mapping[str, str]) -> Table:
    columns = paper_columns(table, titles)
    rows = mark_rows([Row(row.key, titles.get(row.key, row.key), _cells(row, table)) for row in table.rows], columns)
    caption = (
        f"{table.title}: {table.description}. Scores, memory and the average are printed figures; PPE and PME are "
        f"computed here, from the printed average and with the paper's memory of full fine-tuning, "
        f"{table.full_memory:,.0f} MB. Best bold, second underlined."
    )
    return Table("main", table.title, columns, rows, caption, row_title="method" if table.datasets else "row")


def _cells(row: PaperRow, table: PaperTable) -> dict[str, Cell]:
    cells = {
        name: Cell(value, f"{value:.2f} ± {row.stds[name]:.2f}", std=row.stds[name])
        for name, value in row.scores.items()
    }
    cells |= {"memory": number_cell(row.printed["memory"], 0), "average": number_cell(row.printed["avg_auc"])}
    if "params" in row.printed:
        cells["learnable"] = number_cell(row.printed["params"])
    again = recomputed(row, table)
    return cells | {name: number_cell(again[name]) for name in ("ppe", "pme") if name in again}


def _differences_table(table: PaperTable, main: Table) -> Table:
    columns = [
        Column("what", "figure", numeric=False),
        Column("computed", "computed"),
        Column("printed", "printed"),
        Column("difference", "difference"),
    ]
    titles = {row.key: row.title for row in main.rows}
    rows = []
    for row, name, value, printed in _differences(table):
        difference = float(_rounded(value)) - printed
        cells = {
            "what": Cell(text=_NAMES[name]),
            "computed": Cell(value, f"{_rounded(value)}"),
            "printed": number_cell(printed),
            "difference": Cell(difference, f"{difference:+.2f}"),
        }
        rows.append(Row(f"{row.key} {name}", titles[row.key], cells))
    caption = (
        "What differs from print when it is rounded alike, to two decimals with ties to the even one. A PME that is "
        "off by 0.01 is within what the rounding of the printed average explains."
    )
    return Table("differences", "What differs from print", columns, rows, caption, row_title="row")


def _differences(table: PaperTable) -> Iterator[tuple[PaperRow, str, float, float]]:
    for row in table.rows:
        for name, value in recomputed(row, table).items():
            printed = row.printed.get(_PRINTED[name])
            if printed is not None and _rounded(value) != Decimal(str(printed)):
                yield row, name, value, printed


def _rounded(value: float) -> Decimal:
    """To two decimals; a mean of printed figures is exact in them, and floating point must not decide a tie."""
    return Decimal(repr(round(value, 9))).quantize(_CENT, ROUND_HALF_EVEN)
