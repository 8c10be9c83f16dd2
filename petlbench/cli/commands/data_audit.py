"""``petlbench data audit``: what would make a reviewer reject a table, before any training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from petlbench.cli.options import catalog_option, data_root_option, json_option, parse_assignments, setting_option
from petlbench.cli.output import number, percent, print_facts, print_json, print_table

if TYPE_CHECKING:
    from petlbench.audit.audit import Audit
    from petlbench.audit.leaks import Leaks

__all__ = ["audit"]

_MOST_PAIRS = 20
_MOST_CONFOUNDS = 3
_MOST_NAMES = 10
_WAYS = ("bytes", "pixels", "near", "mirrored")


@click.command("audit", epilog="Example: petlbench data audit digits --output digits.html")
@click.argument("dataset")
@click.option("--split", help="official, random, kfold:K/I or repeat:N/I.  [default: the card's]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of split, folds and intervals.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE.html", help="Write a page of figures, too.")
@click.option("--fail", is_flag=True, help="Exit with status 1 where something grave is found.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads that decode.")
@setting_option
@data_root_option
@catalog_option
@json_option
def audit(
    dataset: str,
    split: str | None,
    seed: int,
    output: Path | None,
    fail: bool,
    workers: int,
    settings: tuple[str, ...],
    data_root: Path,
    catalog: tuple[Path, ...],
    json: bool,
) -> int:
    """Find what a reviewer would reject: duplicates, leaks, and what tells the class without a look at the picture.

    DATASET is a name, a folder of class folders, a CSV file or a card. Nothing is changed or mended.
    """
    from petlbench.audit.audit import audit as examine
    from petlbench.audit.page import check_page_file, write_page
    from petlbench.core.catalog import Catalog
    from petlbench.core.progress_bars import ShownProgress
    from petlbench.data.dataset import open_dataset
    from petlbench.data.splits import SplitScheme

    if output is not None:
        check_page_file(output)
    scheme = None if split is None else SplitScheme.parse(split)
    given = parse_assignments(settings, ("dataset",))["dataset"]
    opened = open_dataset(dataset, catalog=Catalog(catalog), data_root=data_root, settings=given)
    with ShownProgress() as progress:
        found = examine(opened, scheme, seed, workers, progress)
    if output is not None:
        write_page(output, found, opened)
    if json:
        print_json({**found.document(), "page": None if output is None else str(output)})
    else:
        _print(found, output)
    return 1 if fail and found.grave else 0


def _print(found: Audit, output: Path | None) -> None:
    facts = {
        "marked": ", ".join(found.verdicts) or "neither shortcut nor easy",
        "split": found.split,
        **{side: _by_class(found, counts) for side, counts in found.images.items()},
    }
    print_facts(f"audit of {found.dataset}", facts | ({"page": str(output)} if output is not None else {}))
    rows = [["grave" if finding.grave else "", finding.text] for finding in found.findings]
    print_table("findings", ["", "what"], rows or [["", "nothing that would speak against a table on it"]])
    _print_baselines(found)
    _print_leaks(found.leaks)
    _print_confounds(found)
    _print_list("images that cannot be read", [f"{name}: {why}" for name, why in found.unreadable.items()])
    _print_list("groups on two sides of the split", list(found.leaks.groups))
    _print_list("notes", list(found.notes))


def _by_class(found: Audit, counts: Sequence[int]) -> str:
    named = ", ".join(f"{name} {count:,}" for name, count in zip(found.classes, counts, strict=True))
    return f"{sum(counts):,} images: {named}"


def _print_baselines(found: Audit) -> None:
    rows = [
        [
            one.name,
            number(one.auc, 3),
            f"{number(one.low, 3)} to {number(one.high, 3)}" if one.auc is not None else "",
            percent(one.accuracy, 1),
            one.refused or one.features,
        ]
        for one in found.baselines
    ]
    print_table(
        "trivial baselines, cross-validated",
        ["baseline", "AUC>", "95 % interval>", "accuracy, %>", "given"],
        rows,
        caption="interval: bootstrap over images, or groups where they are known; metadata: no look at the picture",
    )


def _print_leaks(leaks: Leaks) -> None:
    if not leaks.twins:
        print_table("duplicates", ["", ""], [["none", f"in {' or '.join(_WAYS)}"]])
        return
    rows = [
        [f"within {one}" if one == other else f"{one} and {other}", *(str(counts[way]) for way in _WAYS)]
        for (one, other), counts in leaks.counts().items()
    ]
    print_table("pairs of duplicates", ["where", *(f"{way}>" for way in _WAYS)], rows)
    shown = [
        [*pair.images, pair.kind, str(pair.bits), number(pair.correlation, 3), _both(pair.classes), _both(pair.sides)]
        for pair in leaks.twins[:_MOST_PAIRS]
    ]
    more = len(leaks.twins) - len(shown)
    columns = ["image", "and", "kind", "bits>", "correlation>", "class", "side"]
    print_table("which they are", columns, shown, caption=f"and {more:,} more (see --json)" if more else "")


def _both(words: tuple[str | None, str | None]) -> str:
    one, other = (word or "none" for word in words)
    return one if one == other else f"{one}, {other}"


def _print_confounds(found: Audit) -> None:
    if found.confounds:
        rows = [[one.column, number(one.cramers_v), f"{one.p:.1g}"] for one in found.confounds]
        print_table(
            "what goes with the class",
            ["column", "Cramér's V>", "p (chi-squared)>"],
            rows,
            caption="V: 0 unrelated, 1 one tells the other; p takes the images for independent",
        )
    from petlbench.audit.confounders import WEAK

    for one in [one for one in found.confounds if one.cramers_v >= WEAK][:_MOST_CONFOUNDS]:
        rows = [[row, *(str(count) for count in counts)] for row, counts in zip(one.rows, one.counts, strict=True)]
        print_table(f"images by {one.column} and class", [one.column, *(f"{name}>" for name in found.classes)], rows)
    for what, names in (("the same for all images", found.constant), ("names of single images", found.identifying)):
        if names:
            print_table(f"columns that are {what}", [""], [[", ".join(names)]])


def _print_list(heading: str, lines: list[str]) -> None:
    if lines:
        more = len(lines) - _MOST_NAMES
        print_table(
            heading, [""], [[line] for line in lines[:_MOST_NAMES]], caption=f"and {more:,} more" if more > 0 else ""
        )
