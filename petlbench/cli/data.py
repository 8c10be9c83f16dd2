"""``petlbench data``: what is known of a dataset."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petlbench.cli.assignments import parse_assignments
from petlbench.cli.options import CatalogOption, DataRootOption, JsonOption, data_root
from petlbench.cli.output import print_facts, print_json, print_table

if TYPE_CHECKING:
    from petlbench.data.dataset import Dataset, DatasetInfo

__all__ = ["app"]

app = typer.Typer(help="Look at datasets.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _about() -> None:
    pass


@app.command("info", epilog="Example: petlbench data info lesions")
def info(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset, a folder of class folders, a CSV or a card.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="dataset.KEY=VALUE", metavar="KEY=V")] = None,
    data_root_: DataRootOption = None,
    catalog: CatalogOption = None,
    json: JsonOption = False,
) -> None:
    """Show a dataset's card, its classes, and how many images there are."""
    from petlbench.catalog import Catalog
    from petlbench.data.dataset import describe_dataset, open_dataset

    found, root = Catalog(catalog or ()), data_root(data_root_)
    settings = parse_assignments(set_ or [], ("dataset",))["dataset"]
    described = describe_dataset(dataset, catalog=found, data_root=root, settings=settings)
    opened = open_dataset(dataset, catalog=found, data_root=root, settings=settings) if described.readable else None
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
        "title": card.title + (" (synthetic: made by a program)" if card.synthetic else ""),
        "modality": card.modality,
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
