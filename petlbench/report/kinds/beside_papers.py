"""The papers' figures beside those of a study, with the difference, in a table of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from petlbench.report.document import Cell, Column, Row, Table
from petlbench.report.grid import Grid
from petlbench.report.kinds.papers import PAPERS, PaperRow, PaperTable, paper_table

__all__ = ["compare_with_papers"]

_OURS = {"learnable": "params", "memory": "memory", "average": "avg_auc", "ppe": "ppe", "pme": "pme"}
_DIGITS = {"memory": 0}
# They depend on the mean over datasets, which is another quantity over other datasets.
_AVERAGES = ("average", "ppe", "pme")

_COUNTS = (
    "Learnable parameters are counted by each side in its own way; "
    "--columns learnable_published adds ours as the papers count."
)


def compare_with_papers(report: str, main: Table, grid: Grid, settings: str) -> list[Table]:
    """Put what papers print beside the rows of a table; one table a paper, and none where nothing is common to both."""
    papers = [paper for name in PAPERS if (paper := paper_table(name, report)) is not None]
    return [table for paper in papers if (table := _comparison(paper, main, grid, settings)) is not None]


def _comparison(paper: PaperTable, main: Table, grid: Grid, settings: str) -> Table | None:
    labels = {line.key: line.published for line in grid.lines}
    pairs = [(row, printed) for row in main.rows if (printed := paper.row(labels.get(row.key, row.key))) is not None]
    same = set(grid.datasets) == set(paper.averaged)
    shared = [
        column
        for column in main.columns
        if (same or column.key not in _AVERAGES) and any(_printed(row, column.key) is not None for _, row in pairs)
    ]
    if not pairs or not shared:
        return None
    rows = [Row(row.key, row.title, _cells(row, printed, shared)) for row, printed in pairs]
    caption = (
        f"Ours: {settings}. Published: {paper.title}, {paper.description}. Two memory figures are one quantity only "
        "where precision, attention kernel, batch and what is counted agree; two scores only where split, weights and "
        "image size do. Difference: ours less published."
    )
    columns = [part for column in shared for part in _columns(column)]
    notes = [] if same else [f"Averages are not compared: the paper's is over {', '.join(paper.averaged)}."]
    if any(column.key == "learnable" for column in shared):
        notes.append(_COUNTS)
    return Table(f"papers_{paper.paper}", f"Ours beside {paper.title}", columns, rows, caption, notes, main.row_title)


def _columns(column: Column) -> Sequence[Column]:
    unit = "MiB, MB" if column.key == "memory" else column.unit
    heading = f"{column.title}, {unit}" if unit else column.title
    return [Column(f"{column.key}_{part}", part, "", group=heading) for part in ("ours", "published", "difference")]


def _cells(row: Row, printed: PaperRow, shared: Sequence[Column]) -> Mapping[str, Cell]:
    cells: dict[str, Cell] = {}
    for column in shared:
        ours, theirs = row.cells.get(column.key, Cell()), _printed(printed, column.key)
        digits = _DIGITS.get(column.key, 2)
        cells[f"{column.key}_ours"] = Cell(ours.value, ours.text, std=ours.std, reason=ours.reason)
        std = printed.stds.get(column.key)
        text = "–" if theirs is None else f"{theirs:,.{digits}f}" + ("" if std is None else f" ± {std:.2f}")
        cells[f"{column.key}_published"] = Cell(theirs, text, std=std, reason="not printed" if theirs is None else "")
        difference = Cell(text="–", reason="one of the two is missing")
        if ours.value is not None and theirs is not None:
            difference = Cell(ours.value - theirs, f"{ours.value - theirs:+,.{digits}f}")
        cells[f"{column.key}_difference"] = difference
    return cells


def _printed(row: PaperRow, key: str) -> float | None:
    return row.printed.get(_OURS.get(key, ""), row.scores.get(key))
