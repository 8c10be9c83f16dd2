"""``petlbench data``: what is known of a dataset."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petlbench.cli.assignments import parse_assignments
from petlbench.cli.options import catalog_option, data_root_option, json_option, setting_option
from petlbench.cli.output import print_facts, print_json, print_table

if TYPE_CHECKING:
    from petlbench.data.dataset import Dataset, DatasetInfo

__all__ = ["command"]


@click.group("data", epilog="Example: petlbench data info lesions")
def command() -> None:
    """Look at datasets."""


@command.command("info", epilog="Example: petlbench data info lesions")
@click.argument("dataset")
@setting_option
@data_root_option
@catalog_option
@json_option
def info(dataset: str, settings: tuple[str, ...], data_root: Path, catalog: tuple[Path, ...], json: bool) -> None:
    """Show a dataset's card, its classes, and how many images there are.

    DATASET is a name, a folder of class folders, a CSV file or a card.
    """
    from petlbench.catalog import Catalog
    from petlbench.data.dataset import describe_dataset, open_dataset

    found, given = Catalog(catalog), parse_assignments(settings, ("dataset",))["dataset"]
    described = describe_dataset(dataset, catalog=found, data_root=data_root, settings=given)
    opened = open_dataset(dataset, catalog=found, data_root=data_root, settings=given) if described.readable else None
    if json:
        print_json(_document(described, opened))
        return
    _print(described, opened)


def _document(described: DatasetInfo, opened: Dataset | None) -> dict[str, Any]:
    return {
        "name": described.name,
        "card": described.card.model_dump(mode="json"),
        "images": described.images,
        "readable": described.readable,
        "images_by_class": _by_class(opened) if opened is not None else None,
        "settings": dict(described.settings),
        "notes": list(opened.notes) if opened is not None else [],
    }


def _by_class(opened: Dataset) -> dict[str, int]:
    counts = Counter(record.label for record in opened.records)
    return {name: counts[label] for label, name in enumerate(opened.classes)}


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
    if opened is not None:
        rows = [[name, str(count)] for name, count in _by_class(opened).items()]
        print_table("images by class", ["class", "images>"], rows)
    for heading, lines in (("known issues", card.known_issues), ("not verified on the real files", card.unverified)):
        if lines:
            print_table(heading, [""], [[line] for line in lines])
