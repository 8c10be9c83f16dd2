"""``petlbench board``: many studies on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from petlbench.cli.options import PLACE, catalog_option, json_option
from petlbench.cli.output import Target
from petlbench.core.catalog import Catalog


@click.command("board", epilog="Example: petlbench board results bundle.zip --output board.html")
@click.argument("places", nargs=-1, required=True, type=PLACE, metavar="DIR|BUNDLE...")
@click.option("--metric", metavar="NAME", help="A score of petlbench list metrics.  [default: auc]")
@click.option("--format", "formats", metavar="NAMES", help="html, md, csv, latex, json; with commas between them.")
@click.option("--output", type=PLACE, metavar="FILE|DIR", help="Where it goes, such as board.html.")
@catalog_option
@json_option
def command(places: tuple[Path, ...], formats: str | None, output: Path | None, json: bool, **options: Any) -> None:
    """Put studies side by side: folders of results, bundles of petlbench pack, and folders of either.

    A table each dataset and setting; what no table may mix stands in tables of its own. Rows have their best and worst
    possible rank, and letters that those share which cannot be told apart. The page needs no network.
    """
    import petlbench as pb

    target = Target.parse(formats, output, Catalog(options["catalog"]))
    document = pb.board(*places, progress=True, **options)
    target.deliver(document, json=json)
