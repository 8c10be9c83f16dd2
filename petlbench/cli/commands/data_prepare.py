"""``petlbench data prepare``: from official files to a checked dataset with its manifests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petlbench.cli.options import catalog_option, data_root_option, json_option, parse_assignments, setting_option
from petlbench.cli.output import print_facts, print_json, print_table

if TYPE_CHECKING:
    from petlbench.data.official.prepare import Preparation

__all__ = ["prepare"]


@click.command("prepare", epilog="Example: petlbench data prepare isic2018 --from ~/Downloads/isic2018")
@click.argument("dataset")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder that holds the official files, as archives or unpacked; unpacked images stay there.",
)
@click.option(
    "--mirror",
    metavar="URL",
    help="Address of a folder with the same files, used in place of the official addresses.",
)
@click.option("--skip-corrupt", is_flag=True, help="Leave images out that cannot be read, and count them.")
@click.option("--again", is_flag=True, help="Prepare a dataset anew that is prepared already.")
@setting_option
@data_root_option
@catalog_option
@json_option
def prepare(dataset: str, settings: tuple[str, ...], json: bool, **options: Any) -> None:
    """Make a dataset ready for runs: get its official files, check every image, and write down its splits.

    What can be downloaded is downloaded; for the rest, steps are shown. The result is a table of all images and, for
    every split of the card's protocol, a manifest with a checksum that a paper can cite. Stopped at any moment, the
    same command goes on where it was.
    """
    import petlbench as pb

    values = parse_assignments(settings, ("dataset",))["dataset"]
    result = pb.prepare_data(dataset, settings=values, progress=True, **options)
    if json:
        print_json(_document(result))
    else:
        _print(result)


def _document(result: Preparation) -> dict[str, Any]:
    document: dict[str, Any] = {"name": result.name, "folder": str(result.folder), "new": result.new}
    document["unverified"] = list(result.unverified)
    if result.prepared is None:
        return {**document, "files": [str(file) for file in result.files], "images": result.images}
    values = result.prepared.document()
    return {**document, **values, "root": str(result.prepared.root_in(result.folder))}


def _print(result: Preparation) -> None:
    title = f"{result.name} " + ("is prepared" if result.new else "was prepared before; --again prepares it anew")
    facts = {"images": str(result.images)}
    if result.prepared is None:
        print_facts(title, {**facts, **{f"file {file.name}": str(file.parent) for file in result.files}})
        return
    prepared = result.prepared
    facts |= {
        "lying in": str(prepared.root_in(result.folder)),
        "card version": str(prepared.card_version),
        "table": str(result.folder / "images.csv"),
    }
    print_facts(title, facts)
    rows = [
        [scheme, *(str(sum(split.counts[side].values())) for side in ("train", "val", "test")), split.sha256]
        for scheme, split in prepared.splits.items()
    ]
    columns = ["split", "train>", "val>", "test>", "manifest's SHA-256"]
    print_table("splits", columns, rows, caption=f"in {result.folder / 'splits'}")
    for heading, lines in (
        ("what was left out, or is not as expected", prepared.notes()),
        ("not verified on the real files", result.unverified),
    ):
        if lines:
            print_table(heading, [""], [[line] for line in lines])
