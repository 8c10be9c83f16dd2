"""``petlbench data``: what is known of a dataset, and making one ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petlbench.cli.commands.data_audit import audit
from petlbench.cli.commands.data_prepare import prepare
from petlbench.cli.commands.data_verify import verify
from petlbench.cli.options import catalog_option, data_root_option, json_option, parse_assignments, setting_option
from petlbench.cli.output import check_file, print_facts, print_json, print_table
from petlbench.core.errors import InputError

if TYPE_CHECKING:
    from petlbench.data.dataset import Dataset, DatasetInfo
    from petlbench.data.overview import Overview, Spread
    from petlbench.data.readers.prepared import Prepared

__all__ = ["command"]


@click.group("data", epilog="Example: petlbench data info lesions")
def command() -> None:
    """Look at datasets, and make them ready."""


@command.command("info", epilog="Example: petlbench data info lesions --figure lesions.png")
@click.argument("dataset")
@click.option(
    "--figure",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw some images of each class on one page, as .png, .pdf or .svg.",
)
@setting_option
@data_root_option
@catalog_option
@json_option
def info(
    dataset: str,
    figure: Path | None,
    settings: tuple[str, ...],
    data_root: Path,
    catalog: tuple[Path, ...],
    json: bool,
) -> None:
    """Show a dataset's card, its classes by split, and the sizes of its images.

    DATASET is a name, a folder of class folders, a CSV file or a card.
    """
    from petlbench.core.catalog import Catalog
    from petlbench.core.plotting import FORMATS
    from petlbench.data.dataset import describe_dataset, open_dataset

    if figure is not None:
        check_file(figure, "--figure", FORMATS)
    found, given = Catalog(catalog), parse_assignments(settings, ("dataset",))["dataset"]
    described = describe_dataset(dataset, catalog=found, data_root=data_root, settings=given)
    opened = open_dataset(dataset, catalog=found, data_root=data_root, settings=given) if described.readable else None
    prepared, seen = _look(described, opened, figure)
    if json:
        print_json(_document(described, opened, prepared, seen))
        return
    _print(described, opened)
    if opened is not None and seen is not None:
        _print_seen(opened, seen)
    _print_prepared(described, prepared)
    _print_warnings(described, opened, figure)


command.add_command(audit)
command.add_command(prepare)
command.add_command(verify)


def _look(
    described: DatasetInfo, opened: Dataset | None, figure: Path | None
) -> tuple[Prepared | None, Overview | None]:
    """Look at the images, where they are there."""
    from petlbench.core.environment import usable_cores
    from petlbench.core.progress_bars import ShownProgress

    if opened is None:
        if figure is not None:
            raise InputError(
                f"--figure {figure}: the images of '{described.name}' are not there",
                hint=f"petlbench data prepare {described.name}",
                kind="data_missing",
            )
        return None, None
    from petlbench.data.contact_sheet import draw_contact_sheet
    from petlbench.data.overview import overview_of
    from petlbench.data.readers.prepared import PreparedReader

    reader = opened.reader
    prepared, known = (reader.prepared, reader.facts) if isinstance(reader, PreparedReader) else (None, {})
    with ShownProgress() as progress:
        seen = overview_of(opened, known, usable_cores(), progress)
        if figure is not None:
            draw_contact_sheet(opened, figure, progress)
    return prepared, seen


def _document(
    described: DatasetInfo, opened: Dataset | None, prepared: Prepared | None, seen: Overview | None
) -> dict[str, Any]:
    return {
        "name": described.name,
        "card": described.card.model_dump(mode="json"),
        "images": described.images,
        "readable": described.readable,
        "images_by_class": opened.by_class() if opened is not None else None,
        "images_by_split": seen.by_split if seen is not None else None,
        "width": asdict(seen.width) if seen is not None and seen.width is not None else None,
        "height": asdict(seen.height) if seen is not None and seen.height is not None else None,
        "formats": dict(seen.formats) if seen is not None else None,
        "prepared": prepared.document() if prepared is not None else None,
        "settings": dict(described.settings),
        "notes": list(opened.notes) if opened is not None else [],
    }


def _print(described: DatasetInfo, opened: Dataset | None) -> None:
    card = described.card
    facts = {
        "title": card.title,
        "modality": card.modality + (": synthetic, made by a program" if card.synthetic else ""),
        "task": f"{card.task}, {len(card.classes)} classes",
        "images": f"{described.images if described.images is not None else 'unknown'}"
        + ("" if described.readable else " by the card; the files are not here"),
        "split": card.split,
        "groups": card.grouping,
        "licence": card.licence,
        "home": card.home,
        "citation": card.citation,
        "card version": str(card.version),
    }
    facts |= {f"setting {name}": str(value) for name, value in described.settings.items()}
    print_facts(described.name, {name: value for name, value in facts.items() if value})


def _print_seen(opened: Dataset, seen: Overview) -> None:
    counts = opened.by_class()
    sides: Mapping[str, Mapping[str, int]] = seen.by_split or {}
    rows = [[name, str(count), *(str(own[name]) for own in sides.values())] for name, count in counts.items()]
    total = [str(sum(own.values())) for own in sides.values()]
    caption = f"split: {opened.card.split}" if sides else f"not split as {opened.card.split}: {seen.refused}"
    print_table(
        "images by class",
        ["class", "images>", *(f"{side}>" for side in sides)],
        [*rows, ["all", str(sum(counts.values())), *total]],
        caption=caption,
    )
    if seen.width is None or seen.height is None:
        return
    formats = ", ".join(f"{kind} {count}" for kind, count in seen.formats.items())
    print_table(
        "image sizes in pixels",
        ["", "least>", "median>", "greatest>"],
        [["width", *_spread(seen.width)], ["height", *_spread(seen.height)]],
        caption=f"formats: {formats}" + (f"; {seen.unmeasured} not measured" if seen.unmeasured else ""),
    )


def _spread(spread: Spread) -> tuple[str, str, str]:
    return str(spread.least), f"{spread.median:g}", str(spread.greatest)


def _print_prepared(described: DatasetInfo, prepared: Prepared | None) -> None:
    if prepared is not None:
        rows = [[scheme, split.sha256] for scheme, split in prepared.splits.items()]
        print_table("manifests, to be cited", ["split", "SHA-256"], rows)
    elif described.card.layout is not None:
        print(f"not prepared yet: petlbench data prepare {described.name}")


def _print_warnings(described: DatasetInfo, opened: Dataset | None, figure: Path | None) -> None:
    card = described.card
    for heading, lines in (
        ("what was left out, or is not as expected", opened.notes if opened is not None else ()),
        ("known issues", card.known_issues),
        ("not verified on the real files", card.unverified),
    ):
        if lines:
            print_table(heading, [""], [[line] for line in lines])
    if figure is not None:
        print(f"drawn: {figure}")
