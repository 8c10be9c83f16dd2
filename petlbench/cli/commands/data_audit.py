"""``petlbench data audit``: what would make a reviewer reject a table, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from petlbench.cli.options import catalog_option, data_root_option, json_option, parse_assignments, setting_option
from petlbench.cli.output import Target, check_file, print_document, print_facts, print_json
from petlbench.core.catalog import Catalog

__all__ = ["audit"]


@click.command("audit", epilog="Example: petlbench data audit digits --output digits.html")
@click.argument("dataset")
@click.option("--split", help="official, random, kfold:K/I or repeat:N/I.  [default: the card's]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of split, folds and intervals.")
@click.option(
    "--format",
    "formats",
    metavar="NAMES",
    help="html, latex, csv, md, json, png, …, as of a report.  [default: by the ending of --output]",
)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE|DIR", help="Write FILE.html or others, too.")
@click.option("--fail", is_flag=True, help="Exit with status 1 where something grave is found.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads that decode.")
@setting_option
@data_root_option
@catalog_option
@json_option
def audit(
    dataset: str,
    formats: str | None,
    output: Path | None,
    fail: bool,
    settings: tuple[str, ...],
    json: bool,
    **options: Any,
) -> int:
    """Find what a reviewer would reject: duplicates, leaks, and what tells the class without a look at the picture.

    DATASET is a name, a folder of class folders, a CSV file or a card. Nothing is changed or repaired.
    """
    import petlbench as pb

    target = Target.parse(formats, output, Catalog(options["catalog"]))
    if output is not None and output.suffix:
        check_file(output, "--output")
    values = parse_assignments(settings, ("dataset",))["dataset"]
    result = pb.audit_data(dataset, settings=values, progress=True, **options)
    document = result.report(pictures=output is not None)
    files = [str(file) for file in target.write(document)]
    text = target.text(document)
    if json:
        print_json({**result.audit.document(), "page": None if output is None else str(output), "files": files})
    elif text is not None:
        click.echo(text, nl=False)
    else:
        print_facts(document.title, {**document.settings, **({"written": ", ".join(files)} if files else {})})
        print_document(document)
    return 1 if fail and result.audit.grave else 0
