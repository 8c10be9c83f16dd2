"""A whole audit: one pass over the images, and everything that is asked of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np

from petlbench.audit.baselines import Baseline, run_baselines
from petlbench.audit.confounders import Confound, columns_of, find_confounds
from petlbench.audit.leaks import DuplicatePair, Leaks, find_leaks
from petlbench.audit.scan import Scan, scan_images
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset
from petlbench.data.record import SPLITS, Split, images_by_class
from petlbench.data.splits import SplitScheme, assign_splits

TOO_EASY = 0.9
"""A baseline whose AUC is above this with its lower bound marks the dataset."""

TOLD_BY_FILES = 0.85
"""An AUC from which on statistics of files or of grey levels alone are a finding."""

MISSING_GROUPS = "missing_groups"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        kind: A stable identifier.
        grave: Whether a table on this dataset and split should be rejected for it.
        text: What it is.
    """

    kind: str
    grave: bool
    text: str


@dataclass(frozen=True)
class Audit:
    """What came out.

    Args:
        dataset: The dataset's name.
        classes: Class names.
        images: Number of images by side of the split, one number a class; ``all`` where there is no split.
        split: The split in words.
        notes: What the reader left out, and what could not be looked at.
        unreadable: What is wrong with images that cannot be read, by image id.
        leaks: Duplicates and groups.
        confounds: Tables of class by what is known without a look.
        constant: Columns that say the same of all images.
        identifying: Columns that name single images.
        baselines: Trivial classifiers.
        findings: What is wrong.
        together: Images that have each two classes, (C, C); none where no image has two.
        groups: How many groups (patients, lesions) are known; None where the dataset has none to know.
        date: The day of the audit, ``2025-01-31``.
    """

    dataset: str
    classes: tuple[str, ...]
    images: Mapping[str, Sequence[int]]
    split: str
    notes: tuple[str, ...]
    unreadable: Mapping[str, str]
    leaks: Leaks
    confounds: Sequence[Confound]
    constant: Sequence[str]
    identifying: Sequence[str]
    baselines: Sequence[Baseline]
    findings: Sequence[Finding]
    together: Sequence[Sequence[int]] = ()
    groups: int | None = 0
    date: str = ""

    @property
    def grave(self) -> bool:
        """Whether a table on this dataset and split should be rejected."""
        return any(finding.grave for finding in self.findings)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """``shortcut`` and ``easy``, where the dataset is that."""
        return tuple(finding.kind for finding in self.findings if finding.kind in ("shortcut", "easy"))

    def document(self) -> dict[str, Any]:
        """Everything as JSON; pairs and sets by image id."""
        return {
            "dataset": self.dataset,
            "date": self.date,
            "groups": self.groups,
            "classes": list(self.classes),
            "images": {side: list(counts) for side, counts in self.images.items()},
            "split": self.split,
            "notes": list(self.notes),
            "verdicts": list(self.verdicts),
            "grave": self.grave,
            "findings": [asdict(finding) for finding in self.findings],
            "unreadable": dict(self.unreadable),
            "duplicates": {
                "pairs": [asdict(pair) for pair in self.leaks.pairs],
                "sets": [list(names) for names in self.leaks.sets],
                "with_duplicate_in_training": {
                    side: {"images": count, "of": total} for side, (count, total) in self.leaks.leaked.items()
                },
            },
            "groups_on_two_sides": list(self.leaks.groups),
            "confounds": [asdict(confound) for confound in self.confounds],
            "constant": list(self.constant),
            "identifying": list(self.identifying),
            "baselines": [baseline.document() for baseline in self.baselines],
            **({"together": [list(row) for row in self.together]} if self.together else {}),
        }


def audit(dataset: Dataset, scheme: SplitScheme | None, seed: int, workers: int, progress: Progress) -> Audit:
    """Look for what would make a reviewer reject a table on this dataset. Nothing is changed or repaired.

    Args:
        dataset: The dataset.
        scheme: The split that is looked at; None for the card's, or for none where that cannot be made.
        seed: Seed of a drawn split, of the baselines' folds and models, and of their intervals.
        workers: Threads that decode.
        progress: Told what goes on.

    Raises:
        InputError: When no two images can be read, or a split that was asked for cannot be made.
    """
    scan = scan_images(dataset, workers, progress)
    if len(scan.records) < 2:
        first = next(iter(scan.unreadable.values()), "there is none")
        raise InputError(
            f"'{dataset.name}' has fewer than two readable images: {first}",
            hint="repair the images, or name another folder",
            kind="corrupt_image",
        )
    sides, split, trouble = _sides(dataset, scan, scheme, seed)
    columns = columns_of(scan)
    leaks = find_leaks(scan, sides)
    baselines = run_baselines(scan, columns, seed, workers, progress)
    groups = len({record.group for record in scan.records} - {None})
    has_none = dataset.card.grouping == "none"
    return Audit(
        dataset.name,
        dataset.classes,
        _counts(scan, sides),
        split,
        (*dataset.notes, *trouble),
        scan.unreadable,
        leaks,
        find_confounds(columns, scan.questions, len(scan.classes)),
        tuple(column.name for column in columns if column.constant),
        tuple(column.name for column in columns if column.identifies),
        baselines,
        [*findings_of(leaks, baselines, scan.unreadable), *([] if groups or has_none else [_missing_groups(scan)])],
        _together(scan),
        None if has_none else groups,
        date.today().isoformat(),
    )


def _sides(
    dataset: Dataset, scan: Scan, scheme: SplitScheme | None, seed: int
) -> tuple[list[Split | None], str, tuple[str, ...]]:
    """The side of every image, the split in words, and why there is none."""
    split = scheme or SplitScheme.parse(dataset.card.split)
    sides: list[Split | None] = [record.split for record in scan.records]
    try:
        if split.kind != "official":
            return [*_drawn(dataset, scan, split, seed)], f"{split}, seed {seed}", ()
        # As it was given: `assign_splits` would refuse one that leaks, which is what is to be reported.
        if any(sides):
            return sides, str(split), ()
        hint = "choose --split random or leave it out"
        raise InputError("the dataset has no official split", hint=hint, kind="no_official_split")
    except InputError as error:
        if scheme is not None:
            raise
        return [None] * len(sides), "none", (f"the split '{split}' cannot be made: {error.message}",)


def _drawn(dataset: Dataset, scan: Scan, split: SplitScheme, seed: int) -> list[Split]:
    return assign_splits(scan.records, split, seed, classes=dataset.classes, strata=dataset.task.strata)


def _counts(scan: Scan, sides: Sequence[Split | None]) -> dict[str, list[int]]:
    names: dict[Split | None, str] = {side: side for side in SPLITS} | {None: "no side" if any(sides) else "all"}
    by_side = {
        name: [record for own, record in zip(sides, scan.records, strict=True) if own == side]
        for side, name in names.items()
        if side in sides
    }
    labels = scan.task.labels
    return {name: list(images_by_class(own, scan.classes, labels).values()) for name, own in by_side.items()}


def _together(scan: Scan) -> tuple[tuple[int, ...], ...]:
    """How many images have each two classes, (C, C); none where no image has two."""
    counts = np.zeros((len(scan.classes),) * 2, dtype=np.int64)
    for record in scan.records:
        positions = scan.task.labels.positions(record.label)
        counts[np.ix_(positions, positions)] += 1
    return tuple(map(tuple, counts.tolist())) if (counts - np.diag(np.diag(counts))).any() else ()


def findings_of(leaks: Leaks, baselines: Sequence[Baseline], unreadable: Mapping[str, str]) -> list[Finding]:
    """Return what is wrong in words, grave things first.

    Args:
        leaks: Duplicates and groups.
        baselines: Trivial classifiers.
        unreadable: What is wrong with images that cannot be read, by image id.
    """
    findings = [*_verdicts(baselines), *_leaks(leaks)]
    if unreadable:
        first = next(iter(unreadable))
        findings.append(Finding("unreadable", True, f"{_many(len(unreadable), 'image')} cannot be read, first {first}"))
    return sorted(findings, key=lambda finding: not finding.grave)


def _missing_groups(scan: Scan) -> Finding:
    text = (
        f"no patients or lesions are known of {len(scan.records):,} images: whether images of one are on two sides of "
        "the split cannot be checked, and intervals take images for independent"
    )
    return Finding(MISSING_GROUPS, False, text)


def _verdicts(baselines: Sequence[Baseline]) -> Iterator[Finding]:
    above = {baseline.name: baseline for baseline in baselines if (baseline.low or 0.0) > TOO_EASY}
    for baseline in baselines:
        names = [each.name for each in baseline.parts if (each.low or 0.0) > TOO_EASY]
        if names and baseline.name not in above and baseline.name in ("metadata", "pixels"):
            by_sight = baseline.uses_pixels
            how = "plain pixels of 32x32 tell" if by_sight else "what is known without a look at the picture tells"
            yield Finding("easy_label" if by_sight else "shortcut_label", not by_sight, f"{how}: {', '.join(names)}")
    if "metadata" in above:
        how = (
            "and without the file size too"
            if "metadata but file size" in above
            or all(baseline.name != "metadata but file size" for baseline in baselines)
            else "through the file size, which compression makes depend on the picture"
        )
        text = f"the class can be told without a look at the picture, {how}: {_figures(above['metadata'])}"
        yield Finding("shortcut", True, text)
    told = [each for each in baselines if each.name in ("file", "grey levels") and (each.auc or 0) >= TOLD_BY_FILES]
    if told:
        text = f"statistics of files or grey levels alone tell the class: {', '.join(map(_figures, told))}"
        yield Finding("file_statistics", False, f"{text}; a network may have learned no more than these")
    if "pixels" in above:
        text = f"plain pixels of 32x32 tell the class: {_figures(above['pixels'])}"
        yield Finding("easy", False, f"{text}; figures near 100 % say little about a method")


def _figures(baseline: Baseline) -> str:
    auc, low, high = (f"{100 * (value or 0):.1f}" for value in (baseline.auc, baseline.low, baseline.high))
    return f"{baseline.name} has an AUC of {auc} % ({low} to {high})"


def _leaks(leaks: Leaks) -> Iterator[Finding]:
    if leaks.across:
        copies = ", ".join(
            f"{count} of {total} {side} images" for side, (count, total) in leaks.leaked.items() if count
        )
        text = f"{_pairs(leaks.across)} on two sides of the split"
        yield Finding("duplicate_leak", True, f"{text}; with a duplicate in training: {copies}" if copies else text)
    if leaks.groups:
        text = f"{_many(len(leaks.groups), 'group')} on two sides of the split, first {leaks.groups[0]}"
        yield Finding("group_leak", True, text)
    inside = [pair for pair in leaks.pairs if not pair.across]
    if inside:
        yield Finding("duplicates", False, f"{_pairs(inside)} on one side of the split")
    exact = [pair for pair in leaks.two_labels if pair.exact]
    near = [pair for pair in leaks.two_labels if not pair.exact]
    if exact:
        text = f"{_many(len(exact), 'pair')} of equal images with two labels, first {' and '.join(exact[0].images)}"
        yield Finding("two_labels", True, text)
    if near:
        text = (
            f"{_many(len(near), 'pair')} of nearly equal images with two labels, first {' and '.join(near[0].images)}"
        )
        yield Finding("near_two_labels", False, text)


def _pairs(pairs: Sequence[DuplicatePair]) -> str:
    exact = sum(pair.exact for pair in pairs)
    return f"{_many(len(pairs), 'pair')} of duplicates ({exact} equal, {len(pairs) - exact} nearly equal)"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
