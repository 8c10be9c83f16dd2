"""``petlbench report``: a study as a table or figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from petlbench.cli.options import PLACE, PRESETS, catalog_option, json_option
from petlbench.cli.output import Target, say
from petlbench.core.catalog import Catalog


@click.command("report", epilog="Example: petlbench report table1 --results results --format md,latex --output tables")
@click.argument("name")
@click.option(
    "--results",
    default="results",
    show_default=True,
    metavar="DIR|BUNDLE|mlflow:URI|papers:NAME|FILE.csv",
    help="A folder of results, a bundle of petlbench pack, an MLflow store, what a paper prints (miccai2024, "
    "tnnls2025, a suite's name), or scores that others have.",
)
@click.option("--study", help="Only what this study ran.  [default: all results]")
@click.option(
    "--preset",
    type=PRESETS,
    default="any",
    show_default=True,
    help="fp16 with eager attention, bf16 with fused attention, or what all results have in common.",
)
@click.option("--setting", "old_preset", type=PRESETS, hidden=True)
@click.option(
    "--where", multiple=True, metavar="KEY=VALUE", help="Only runs with this in their config, such as precision=fp32."
)
@click.option("--compare", type=click.Choice(["papers"]), help="Put what the papers print beside, with the difference.")
@click.option(
    "--columns",
    default="",
    metavar="NAMES",
    help="Further columns, such as gap,last,hours,search_hours,disk,trials,test_reads; all: none is hidden.",
)
@click.option(
    "--metric", metavar="NAME", help="A score of petlbench list metrics.  [default: the report's own, or auc]"
)
@click.option(
    "--unit",
    type=click.Choice(["image", "group"]),
    default="image",
    show_default=True,
    help="What scores count: images, or groups (patients, lesions).",
)
@click.option(
    "--by",
    default="",
    metavar="COLUMNS",
    help="Subgroups by these columns of the dataset's table, such as sex,site,age:40:60; a report on subgroups.",
)
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
@click.option(
    "--decimals",
    type=click.IntRange(0, 4),
    help="Decimals of scores.  [default: as many as their deviations leave, the same in a column]",
)
@click.option(
    "--width",
    metavar="LENGTH",
    help="Of figures and of tables in LaTeX, such as 122mm or 60mm.  [default: 122mm, a column of LNCS]",
)
@click.option("--font", type=click.FloatRange(5, 24), help="Size of the type in figures, in points.  [default: 8]")
@click.option("--against", metavar="METHOD", help="Compare every method with this one.  [default: the report's own]")
@click.option(
    "--audits",
    type=PLACE,
    metavar="DIR",
    help="NAME.json of petlbench data audit NAME --json.  [default: audits in the folder of the results]",
)
@click.option(
    "--format",
    "formats",
    metavar="NAMES",
    help="md, csv, latex, json, html, png, pdf, svg or your own; with commas between them.",
)
@click.option("--standalone", is_flag=True, help="LaTeX as a whole document.")
@click.option("--output", type=PLACE, metavar="FILE|DIR", help="Where files go.")
@catalog_option
@json_option
def command(
    name: str,
    formats: str | None,
    standalone: bool,
    output: Path | None,
    width: str | None,
    font: float | None,
    json: bool,
    **options: Any,
) -> None:
    """Make a table or figure of stored results: NAME is one of petlbench list reports.

    Without --format and --output it is printed. Nothing is run: empty cells say why, and notes name the commands.
    """
    import petlbench as pb
    from petlbench.report.look import FONT, WIDTH, parse_width
    from petlbench.report.selection import parse_where

    if (old_preset := options.pop("old_preset")) is not None:
        say("--setting is called --preset now", err=True)
        options["preset"] = old_preset
    if standalone and formats is not None:
        names = {"latex": "latex_document", "tex": "latex_document"}
        formats = ",".join(names.get(each.strip().lower(), each) for each in formats.split(","))
    elif standalone and output is not None and output.suffix.lower() == ".tex":
        formats = "latex_document"
    millimetres = WIDTH if width is None else parse_width(width)
    target = Target.parse(formats, output, Catalog(options["catalog"]))
    in_parts = "all" in options["columns"].split(",")
    options["where"] = parse_where(options["where"])
    options["compare"] = options["compare"] is not None
    for several in ("columns", "by"):
        words = [word.strip() for word in options[several].split(",")]
        options[several] = tuple(word for word in words if word not in {"", "all"})
    document = pb.report(name, progress=True, **options).sized(millimetres, font or FONT)
    target.deliver(document, json=json, in_parts=in_parts)
