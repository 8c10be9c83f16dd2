"""The papers' printed tables: read, computed again from their own figures, and put beside those of a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from statistics import fmean
from typing import TYPE_CHECKING

from petlbench.core.errors import InputError, unknown_name
from petlbench.metrics.efficiency import pme, ppe
from petlbench.report.cells import mark_rows, number_cell
from petlbench.report.context import Grid
from petlbench.report.document import Cell, Column, Row, Table
from petlbench.report.formats import Document
from petlbench.report.spec import ReportKind, ReportRequest
from petlbench.study.forecast.papers import Paper, papers, printed_lines

if TYPE_CHECKING:
    from petlbench.report.inputs import ReportInputs


# Columns that are no dataset.
_OTHERS = ("params", "memory", "avg_auc", "ppe", "pme")


@dataclass(frozen=True)
class PaperRow:
    """A printed row.

    Args:
        key: Its label in the file.
        scores: Printed AUC by dataset, in percent.
        stds: Printed standard deviations by dataset, in percent.
        printed: What else is printed: ``params`` (percent), ``memory`` (MB), ``avg_auc`` (percent), ``ppe``, ``pme``.
    """

    key: str
    scores: Mapping[str, float]
    stds: Mapping[str, float]
    printed: Mapping[str, float]


@dataclass(frozen=True)
class PaperTable:
    """A printed table.

    Args:
        paper: The paper, with the settings that its figures were read in, as far as is known.
        file: Name of the table's file without its ending.
        rows: The rows in their order.
        full_memory: Printed memory of ``full`` in MB, which the paper's PME refers to.
    """

    paper: Paper
    file: str
    rows: tuple[PaperRow, ...]
    full_memory: float

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets that have columns."""
        return tuple(self.rows[0].scores)

    @property
    def description(self) -> str:
        """The settings in words."""
        paper = self.paper
        return (
            f"{paper.backbone} at {paper.image_size} pixels, batch size {paper.batch_size}; as far as is known in "
            f"{paper.precision} with {paper.attention_kernel} attention, memory as nvidia-smi shows it"
        )


def paper_table(name: str, report: str) -> PaperTable | None:
    """The printed table that stands for a report; None where the paper prints none of that kind.

    Raises:
        InputError: When no such paper is known.
    """
    by_name = {paper.key: paper for paper in papers()}
    if name not in by_name:
        raise unknown_name("paper", name, by_name)
    paper = by_name[name]
    if report not in paper.tables:
        return None
    full = next(float(line["memory"]) for line in printed_lines(paper.tables["table1"]) if line["method"] == "full")
    return PaperTable(paper, paper.tables[report], tuple(map(_row, printed_lines(paper.tables[report]))), full)


def _row(line: Mapping[str, str]) -> PaperRow:
    label, *columns = line
    scores = [name for name in columns if name not in _OTHERS and not name.endswith("_std")]
    return PaperRow(
        line[label],
        {name: float(line[name]) for name in scores},
        {name: float(line[f"{name}_std"]) for name in scores},
        {name: float(line[name]) for name in _OTHERS if line.get(name)},
    )


_CENT = Decimal("0.01")
_NAMES = {"average": "average of its cells", "ppe": "PPE", "pme": "PME"}
_PRINTED = {"average": "avg_auc", "ppe": "ppe", "pme": "pme"}


def printed_report(inputs: ReportInputs, name: str, kind: ReportKind) -> Document:
    """Compute a paper's table again.

    Raises:
        InputError: When the paper is not known, or prints no such table.
    """
    card, titles = inputs.card, inputs.titles
    table = paper_table(name, card.name)
    if table is None:
        commands = ", ".join(
            f"report {report} --results papers:{paper.key}" for paper in papers() for report in paper.tables
        )
        raise InputError(
            f"--results papers:{name} has no figures for the report '{card.name}'",
            hint=f"there are: {commands}",
            kind="no_results",
        )
    check_request(inputs.request)
    main = _main_table(table, titles)
    settings = {key: value for key, value in vars(table.paper).items() if key not in {"key", "tables", "datasets"}}
    differences = _differences_table(table, main)
    return Document(
        card.name,
        f"{card.title}: {table.paper.title}, computed again",
        (main, differences) if differences.rows else (main,),
        (kind.printed_figure(table, inputs),) if kind.printed_figure is not None else (),
        () if differences.rows else ("Every figure that can be computed again agrees with print.",),
        source=f"reports/published/{table.file}.csv",
        settings={"results": f"papers:{name}", **settings, "rows": len(table.rows)},
    )


def check_request(request: ReportRequest) -> None:
    """Refuse options that a printed table cannot heed."""
    heeded = {"results", "x"}
    others = {name: value for name, value in vars(ReportRequest()).items() if name not in heeded}
    if ignored := [name for name, value in others.items() if getattr(request, name) != value]:
        options = ", ".join({"figure": "--memory"}.get(name, f"--{name}") for name in ignored)
        raise InputError(
            f"--results {request.results}: {options} means nothing there, as the figures are printed ones",
            hint="leave it out",
            kind="usage",
        )


def recomputed(row: PaperRow, table: PaperTable) -> dict[str, float]:
    """What follows from a row's printed figures, unrounded: ``average`` in percent, ``ppe`` and ``pme``, where it can.

    PPE and PME are those of the printed average, which is the mean over datasets of figures that nobody printed.
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
        f"{table.paper.title}: {table.description}. Scores, memory and the average are printed figures; PPE and PME "
        f"are computed here, from the printed average and with the paper's memory of full fine-tuning, "
        f"{table.full_memory:,.0f} MB. Best bold, second underlined."
    )
    return Table(
        "main",
        table.paper.title,
        columns,
        rows,
        caption,
        row_title="method" if table.datasets else "row",
        has_print=True,
    )


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
    return Table("differences", "What differs from print", columns, rows, caption, row_title="row", has_print=True)


def _differences(table: PaperTable) -> Iterator[tuple[PaperRow, str, float, float]]:
    for row in table.rows:
        for name, value in recomputed(row, table).items():
            printed = row.printed.get(_PRINTED[name])
            if printed is not None and _rounded(value) != Decimal(str(printed)):
                yield row, name, value, printed


def _rounded(value: float) -> Decimal:
    """To two decimals; a mean of printed figures is exact in them, and floating point must not decide a tie."""
    return Decimal(repr(round(value, 9))).quantize(_CENT, ROUND_HALF_EVEN)


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
    tables = [paper_table(paper.key, report) for paper in papers()]
    return [table for each in tables if each and (table := _comparison(each, main, grid, settings)) is not None]


def _comparison(printed: PaperTable, main: Table, grid: Grid, settings: str) -> Table | None:
    labels = {line.key: line.published for line in grid.lines}
    by_key, paper = {row.key: row for row in printed.rows}, printed.paper
    pairs = [(row, by_key[label]) for row in main.rows if (label := labels.get(row.key, row.key)) in by_key]
    same = set(grid.datasets) == set(paper.datasets)
    shared = [
        column
        for column in main.columns
        if (same or column.key not in _AVERAGES) and any(_figure(row, column.key) is not None for _, row in pairs)
    ]
    if not pairs or not shared:
        return None
    rows = [Row(row.key, row.title, _side_by_side(row, theirs, shared)) for row, theirs in pairs]
    caption = (
        f"Ours: {settings}. Published: {paper.title}, {printed.description}. Two memory figures are one quantity only "
        "where precision, attention kernel, batch and what is counted agree; two scores only where split, weights and "
        "image size do. Difference: ours less published."
    )
    columns = [part for column in shared for part in _columns(column)]
    notes = [] if same else [f"Averages are not compared: the paper's is over {', '.join(paper.datasets)}."]
    if any(column.key == "learnable" for column in shared):
        notes.append(_COUNTS)
    return Table(
        f"papers_{paper.key}",
        f"Ours beside {paper.title}",
        columns,
        rows,
        caption,
        notes,
        main.row_title,
        has_print=True,
    )


def _columns(column: Column) -> Sequence[Column]:
    unit = "MiB, MB" if column.key == "memory" else column.unit
    heading = f"{column.title}, {unit}" if unit else column.title
    return [Column(f"{column.key}_{part}", part, "", group=heading) for part in ("ours", "published", "difference")]


def _side_by_side(row: Row, printed: PaperRow, shared: Sequence[Column]) -> Mapping[str, Cell]:
    cells: dict[str, Cell] = {}
    for column in shared:
        ours, theirs = row.cells.get(column.key, Cell()), _figure(printed, column.key)
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


def _figure(row: PaperRow, key: str) -> float | None:
    return row.printed.get(_OURS.get(key, ""), row.scores.get(key))
