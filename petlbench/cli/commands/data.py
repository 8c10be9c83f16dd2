"""``petlbench data``: what is known of a dataset, and making one ready."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petlbench.cli.options import (
    PLACE,
    catalog_option,
    data_root_option,
    json_option,
    parse_assignments,
    setting_option,
)
from petlbench.cli.output import Target, check_file, print_document, print_facts, print_json, print_table, say
from petlbench.core.catalog import Catalog
from petlbench.core.units import readable_size

if TYPE_CHECKING:
    from petlbench.api.data import DataFacts
    from petlbench.data.dataset import Dataset, DatasetInfo
    from petlbench.data.official.prepare import Preparation
    from petlbench.data.official.verify import Verified
    from petlbench.data.overview import Overview
    from petlbench.data.readers.prepared import Prepared

_MOST_NAMED = 20
_LEFT_OUT, _UNVERIFIED = "what was left out, or is not as expected", "not verified on the real files"


@click.group("data", epilog="Example: petlbench data info lesions")
def command() -> None:
    """Look at datasets, and make them ready."""


@command.command("info", epilog="Example: petlbench data info lesions --figure lesions.png")
@click.argument("dataset")
@click.option(
    "--figure",
    type=PLACE,
    metavar="FILE",
    help="Draw some images of each class on one page, as .png, .pdf or .svg.",
)
@setting_option
@data_root_option
@catalog_option
@json_option
def info(dataset: str, figure: Path | None, settings: tuple[str, ...], json: bool, **places: Any) -> None:
    """Show a dataset's card, its classes by split, and the sizes of its images.

    DATASET is a name, a folder of class folders, a CSV file or a card.
    """
    import petlbench as pb
    from petlbench.core.plotting import FORMATS

    if figure is not None:
        check_file(figure, "--figure", FORMATS)
    values = parse_assignments(settings, ("dataset",))["dataset"]
    facts = pb.data_info(dataset, figure=figure, settings=values, progress=True, **places)
    if json:
        print_json(facts.document())
        return
    described = facts.info
    _print(described)
    if described.dataset is not None and facts.overview is not None:
        _print_overview(described.dataset, facts.overview)
    _print_prepared(described, facts.prepared)
    _print_warnings(facts, figure)


@command.command("prepare", epilog="Example: petlbench data prepare isic2018 --from ~/Downloads/isic2018")
@click.argument("dataset")
@click.option(
    "--from",
    "source",
    type=PLACE,
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
        document: dict[str, Any] = {"name": result.name, "folder": str(result.folder), "new": result.new}
        document["unverified"] = list(result.unverified)
        if result.prepared is None:
            document |= {"files": [str(file) for file in result.files], "images": result.images}
        else:
            root = str(result.prepared.root_in(result.folder))
            document |= {**result.prepared.document(), "root": root}
        print_json(document)
    else:
        _print_preparation(result)


@command.command("verify", epilog="Example: petlbench data verify isic2018")
@click.argument("dataset")
@data_root_option
@catalog_option
@json_option
def verify(dataset: str, data_root: Path, catalog: tuple[Path, ...], json: bool) -> int:
    """Check every image of a prepared dataset: present, of the same size and checksum, and readable.

    Exits with status 1 where anything is not as it was when the dataset was prepared.
    """
    import petlbench as pb

    outcome = pb.verify_data(dataset, data_root=data_root, catalog=catalog, progress=True)
    if json:
        document = {"name": dataset, outcome.what: outcome.images, "bytes": outcome.bytes, "whole": not outcome.faults}
        print_json({**document, "faults": [asdict(fault) for fault in outcome.faults]})
    else:
        _print_faults(dataset, outcome)
    return 1 if outcome.faults else 0


@command.command("audit", epilog="Example: petlbench data audit digits --output digits.html")
@click.argument("dataset")
@click.option("--split", help="official, random, kfold:K/I or repeat:N/I.  [default: the card's]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of split, folds and intervals.")
@click.option(
    "--format",
    "formats",
    metavar="NAMES",
    help="html, latex, csv, md, json, png, …, as of a report.  [default: by the ending of --output]",
)
@click.option("--output", type=PLACE, metavar="FILE|DIR", help="Write FILE.html or others, too.")
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
        say(text, end="")
    else:
        print_facts(document.title, {**document.settings, **({"written": ", ".join(files)} if files else {})})
        print_document(document)
    return 1 if fail and result.audit.grave else 0


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
    total = [str(overview.images[side]) for side in sides]
    caption = f"split: {dataset.card.split}" if sides else f"not split as {dataset.card.split}: {overview.refused}"
    print_table(
        "images by class",
        ["class", "images>", *(f"{side}>" for side in sides)],
        [*rows, ["all", str(len(dataset.records)), *total]],
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
        say(f"not prepared yet: petlbench data prepare {described.name}")


def _print_warnings(facts: DataFacts, figure: Path | None) -> None:
    card = facts.info.card
    _print_notes({_LEFT_OUT: facts.notes, "known issues": card.known_issues, _UNVERIFIED: card.unverified})
    if figure is not None:
        say(f"drawn: {figure}")


def _print_notes(notes: Mapping[str, Sequence[str]]) -> None:
    for heading, lines in notes.items():
        if lines:
            say("\n".join([f"{heading}:", *(f"- {line}" for line in lines)]))


def _print_preparation(result: Preparation) -> None:
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
    _print_notes({_LEFT_OUT: prepared.notes(), _UNVERIFIED: result.unverified})


def _print_faults(name: str, outcome: Verified) -> None:
    size = readable_size(outcome.bytes)
    if not outcome.faults:
        say(f"{name}: all {outcome.images} {outcome.what} ({size}) are as they should be")
        return
    kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(fault.kind for fault in outcome.faults).items())
    say(f"{name}: of {outcome.images} {outcome.what} ({size}), not everything is as it should be: {kinds}")
    for fault in outcome.faults[:_MOST_NAMED]:
        say(f"  {fault.message}")
    if len(outcome.faults) > _MOST_NAMED:
        say(f"  and {len(outcome.faults) - _MOST_NAMED} more, which --json names")
    say(f"  hint: get the official files again, then petlbench data prepare {name} --again")
