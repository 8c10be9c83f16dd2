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
    from petlbench.data.overview import Overview
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
    from petlbench.data.dataset import describe_dataset

    if figure is not None:
        check_file(figure, "--figure", FORMATS)
    values = parse_assignments(settings, ("dataset",))["dataset"]
    described = describe_dataset(dataset, catalog=Catalog(catalog), data_root=data_root, settings=values)
    prepared, overview = _look(described, figure)
    if json:
        print_json(_document(described, prepared, overview))
        return
    _print(described)
    if described.dataset is not None and overview is not None:
        _print_overview(described.dataset, overview)
    _print_prepared(described, prepared)
    _print_warnings(described, figure)


command.add_command(audit)
command.add_command(prepare)
command.add_command(verify)


def _look(described: DatasetInfo, figure: Path | None) -> tuple[Prepared | None, Overview | None]:
    """Look at the images, where they are there."""
    from petlbench.core.environment import usable_cores
    from petlbench.core.progress_bars import ShownProgress

    dataset = described.dataset
    if dataset is None:
        if figure is not None:
            raise InputError(
                f"--figure {figure}: the images of '{described.name}' are not there",
                hint=f"petlbench data prepare {described.name}",
                kind="data_missing",
            )
        return None, None
    from petlbench.data.overview import draw_contact_sheet, overview_of
    from petlbench.data.readers.prepared import PreparedReader

    reader = dataset.reader
    prepared, facts = (reader.prepared, reader.facts) if isinstance(reader, PreparedReader) else (None, {})
    with ShownProgress() as progress:
        overview = overview_of(dataset, facts, usable_cores(), progress)
        if figure is not None:
            draw_contact_sheet(dataset, figure, progress)
    return prepared, overview


def _document(described: DatasetInfo, prepared: Prepared | None, overview: Overview | None) -> dict[str, Any]:
    dataset, facts = described.dataset, {} if overview is None else asdict(overview)
    return {
        "name": described.name,
        "card": described.card.model_dump(mode="json"),
        "images": described.images,
        "readable": described.dataset is not None,
        "images_by_class": None if dataset is None else dataset.by_class(),
        "images_by_split": facts.get("by_split"),
        **{name: facts.get(name) for name in ("width", "height", "formats")},
        "prepared": prepared.document() if prepared is not None else None,
        "settings": dict(described.settings),
        "notes": [] if dataset is None else list(dataset.notes),
    }


def _print(described: DatasetInfo) -> None:
    card = described.card
    facts = {
        "title": card.title,
        "modality": card.modality + (": synthetic, made by a program" if card.synthetic else ""),
        "task": f"{card.task}, {len(card.classes)} classes",
        "images": f"{described.images if described.images is not None else 'unknown'}"
        + ("" if described.dataset is not None else " by the card; the files are not here"),
        "split": card.split,
        "groups": card.grouping,
        "licence": card.licence,
        "home": card.home,
        "citation": card.citation,
        "card version": str(card.version),
    }
    facts |= {f"setting {name}": str(value) for name, value in described.settings.items()}
    print_facts(described.name, {name: value for name, value in facts.items() if value})


def _print_overview(dataset: Dataset, overview: Overview) -> None:
    counts = dataset.by_class()
    sides: Mapping[str, Mapping[str, int]] = overview.by_split or {}
    rows = [[name, str(count), *(str(own[name]) for own in sides.values())] for name, count in counts.items()]
    total = [str(sum(own.values())) for own in sides.values()]
    caption = f"split: {dataset.card.split}" if sides else f"not split as {dataset.card.split}: {overview.refused}"
    print_table(
        "images by class",
        ["class", "images>", *(f"{side}>" for side in sides)],
        [*rows, ["all", str(sum(counts.values())), *total]],
        caption=caption,
    )
    if overview.width is None or overview.height is None:
        return
    formats = ", ".join(f"{kind} {count}" for kind, count in overview.formats.items())
    print_table(
        "image sizes in pixels",
        ["", "least>", "median>", "greatest>"],
        [
            [name, str(spread.least), f"{spread.median:g}", str(spread.greatest)]
            for name, spread in (("width", overview.width), ("height", overview.height))
        ],
        caption=f"formats: {formats}" + (f"; {overview.unmeasured} not measured" if overview.unmeasured else ""),
    )


def _print_prepared(described: DatasetInfo, prepared: Prepared | None) -> None:
    if prepared is not None:
        rows = [[scheme, split.sha256] for scheme, split in prepared.splits.items()]
        print_table("manifests, to be cited", ["split", "SHA-256"], rows)
    elif described.card.layout is not None:
        print(f"not prepared yet: petlbench data prepare {described.name}")


def _print_warnings(described: DatasetInfo, figure: Path | None) -> None:
    card, dataset = described.card, described.dataset
    for heading, lines in (
        ("what was left out, or is not as expected", () if dataset is None else dataset.notes),
        ("known issues", card.known_issues),
        ("not verified on the real files", card.unverified),
    ):
        if lines:
            print_table(heading, [""], [[line] for line in lines])
    if figure is not None:
        print(f"drawn: {figure}")
