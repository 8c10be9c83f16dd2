"""``petlbench report``: a study as a table or figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from petlbench.cli.options import catalog_option, json_option
from petlbench.cli.output import print_json
from petlbench.core.catalog import Catalog

if TYPE_CHECKING:
    from petlbench.report.document import Cell, Document, Table
    from petlbench.report.spec import Setting

__all__ = ["command"]

_STYLES = {"best": "bold", "second": "underline"}


@click.command("report", epilog="Example: petlbench report table1 --results results --format md,latex --output tables")
@click.argument("name")
@click.option(
    "--results",
    default="results",
    show_default=True,
    metavar="DIR|mlflow:URI|papers:NAME",
    help="A folder of results, an MLflow store, or what a paper prints (miccai2024, tnnls2025).",
)
@click.option("--study", help="Only what this study ran.  [default: all results]")
@click.option(
    "--setting",
    type=click.Choice(["as-published", "best-practice", "any"]),
    default="any",
    show_default=True,
    help="fp16 with eager attention, bf16 with fused attention, or what all results have in common.",
)
@click.option(
    "--where", multiple=True, metavar="KEY=VALUE", help="Only runs with this in their config, such as precision=fp32."
)
@click.option("--compare", type=click.Choice(["papers"]), help="Put what the papers print beside, with the difference.")
@click.option(
    "--columns",
    default="",
    metavar="NAMES",
    help="Further columns, such as gap,last,hours,search_hours,disk,trials,test_reads.",
)
@click.option("--metric", default="auc", show_default=True, metavar="NAME", help="A score of petlbench list metrics.")
@click.option(
    "--memory",
    "figure",
    type=click.Choice(["allocated", "reserved", "process", "resident"]),
    default="allocated",
    show_default=True,
    help="Which figure of memory; one in all of a table.",
)
@click.option("--measured", is_flag=True, help="Memory by image size: from the results, rather than predicted.")
@click.option("--x", type=click.Choice(["memory", "parameters", "time"]), help="Cost to the right of a figure.")
@click.option("--against", metavar="METHOD", help="Compare every method with this one.  [default: the report's own]")
@click.option(
    "--audits",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="NAME.json of petlbench data audit NAME --json.  [default: audits in the folder of the results]",
)
@click.option(
    "--format", "formats", metavar="NAMES", help="md, csv, latex, json, html, png, pdf, svg; with commas between them."
)
@click.option("--standalone", is_flag=True, help="LaTeX as a whole document.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE|DIR", help="Where files go.")
@catalog_option
@json_option
def command(
    name: str,
    results: str,
    where: tuple[str, ...],
    compare: str | None,
    columns: str,
    formats: str | None,
    standalone: bool,
    output: Path | None,
    catalog: tuple[Path, ...],
    json: bool,
    **asked: Any,
) -> None:
    """Make a table or figure of stored results: NAME is one of petlbench list reports.

    Without --format and --output it is printed. Nothing is run: empty cells say why, and notes name the commands.
    """
    from petlbench.core.progress_bars import ShownProgress
    from petlbench.report.build import build_report
    from petlbench.report.render.write import as_text, check_output, parse_formats, write_report
    from petlbench.report.request import Asked
    from petlbench.report.selection import parse_where
    from petlbench.report.spec import load_report

    wanted = parse_formats(formats, output)
    check_output(wanted, output)
    found = Catalog(catalog)
    card = load_report(found, name)
    further = tuple(column.strip() for column in columns.split(",") if column.strip())
    setting = cast("Setting", asked.pop("setting"))
    request = Asked(
        results, setting=setting, where=parse_where(where), compare=compare is not None, columns=further, **asked
    )
    with ShownProgress() as progress:
        document = build_report(card, request, found, progress)
        files = write_report(document, wanted or ["md"], output, standalone=standalone) if output is not None else []
    if json:
        print_json({**document.plain(), "files": [str(file) for file in files]})
    elif files:
        click.echo("\n".join(str(file) for file in files))
    elif wanted:
        click.echo(as_text(document, wanted[0], standalone=standalone), nl=False)
    else:
        _show(document)


def _show(document: Document) -> None:
    for table in document.tables:
        _show_table(table)
    if document.figures:
        click.echo(f"figures: {', '.join(figure.title for figure in document.figures)} (--format png --output DIR)")
    for note in document.notes:
        click.echo(f"- {note}")
    if document.source:
        click.echo(f"source: {document.source}")


def _show_table(table: Table) -> None:
    from rich.text import Text

    from petlbench.cli.output import print_table

    columns = [table.row_title, *_headings(table)]
    rows = [
        [
            Text(row.title, "italic" if row.kind == "baseline" else ""),
            *(_text(table.cell(row, one)) for one in table.columns),
        ]
        for row in table.rows
    ]
    print_table(
        table.title, columns, rows, caption="\n".join([table.caption, *(f"- {note}" for note in table.notes)]).strip()
    )
    if table.commands:
        # Not in the caption, which is folded: this is to be copied.
        click.echo("\n".join(["what fills the empty cells:", *(f"  {command}" for command in table.commands)]))


def _headings(table: Table) -> list[str]:
    """Headings; the title of a group stands above the first of its columns."""
    found, last = [], ""
    for column in table.columns:
        group = f"{column.group}:\n" if column.group != last else "\n" if column.group else ""
        found.append(f"{group}{column.heading}{'>' if column.numeric else ''}")
        last = column.group
    return found


def _text(cell: Cell) -> Any:
    from rich.text import Text

    return Text(cell.text + (" †" if cell.flags else ""), _STYLES.get(cell.mark, ""))
