"""``petlbench pack``: a study as one file to hand on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from petlbench.cli.options import PLACE, catalog_option, json_option, output_option
from petlbench.cli.output import print_facts, print_json
from petlbench.core.units import readable_size


@click.command("pack", epilog="Example: petlbench pack bench --to bundle.zip")
@click.argument("study", required=False)
@click.option("--to", type=PLACE, default=Path("bundle.zip"), show_default=True, metavar="FILE", help="The bundle.")
@click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="NAME",
    help="A report whose tables go in; may be given several times.  [default: table1, where it can be made]",
)
@click.option("--learned", is_flag=True, help="What was learned goes in, too.")
@click.option(
    "--attributes", is_flag=True, help="What the datasets' tables say of images (age, sex, site, …) goes in, too."
)
@output_option
@catalog_option
@json_option
def command(study: str | None, to: Path, output: Path, json: bool, **options: Any) -> None:
    """Pack the results of STUDY, or all of the folder, for others to check and to make tables of.

    Results, predictions, manifests, studies, tables, environment, commands and checksums go in; passwords and paths of
    this machine never. petlbench verify-pack computes all of it again, and every report takes --results FILE.
    """
    import petlbench as pb

    packed = pb.pack(study, to, results=output, progress=True, **options)
    if json:
        print_json({**asdict(packed), "file": str(packed.file)})
        return
    tables = [name if not reason else f"none of {name}: {reason}" for name, reason in packed.reports.items()]
    facts = {"runs": str(packed.runs), "size": readable_size(packed.size), "tables": "; ".join(tables)}
    facts |= {"not in it": "; ".join(packed.left_out), "to check it": f"petlbench verify-pack {packed.file}"}
    print_facts(str(packed.file), facts)
