"""What an audit comes down to: the sentences that a reviewer would write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from petlbench.audit.baselines import Baseline
from petlbench.audit.leaks import DuplicatePair, Leaks

__all__ = ["TOO_EASY", "Finding", "find"]

TOO_EASY = 0.9
"""A baseline whose AUC is above this with its lower bound marks the dataset."""


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


def find(leaks: Leaks, baselines: Sequence[Baseline], unreadable: Mapping[str, str]) -> list[Finding]:
    """Return what is wrong in words, grave things first.

    Args:
        leaks: Duplicates and groups.
        baselines: Trivial classifiers.
        unreadable: What is wrong with images that cannot be read, by image id.
    """
    findings = [*_verdicts(baselines), *_leaks(leaks), *_labels(leaks)]
    if unreadable:
        first = next(iter(unreadable))
        findings.append(Finding("unreadable", True, f"{_many(len(unreadable), 'image')} cannot be read, first {first}"))
    return sorted(findings, key=lambda finding: not finding.grave)


def _verdicts(baselines: Sequence[Baseline]) -> Iterator[Finding]:
    above = {baseline.name: baseline for baseline in baselines if (baseline.low or 0.0) > TOO_EASY}
    if "metadata" in above:
        how = (
            "and without the file size too"
            if "metadata but file size" in above
            or all(baseline.name != "metadata but file size" for baseline in baselines)
            else "through the file size, which compression makes depend on the picture"
        )
        text = f"the class can be told without a look at the picture, {how}: {_figures(above['metadata'])}"
        yield Finding("shortcut", True, text)
    if "pixels" in above:
        text = f"plain pixels of 32x32 tell the class: {_figures(above['pixels'])}"
        yield Finding("easy", False, f"{text}; figures near 100 % say little about a method")


def _figures(baseline: Baseline) -> str:
    return f"{baseline.name} has an AUC of {baseline.auc:.3f} ({baseline.low:.3f} to {baseline.high:.3f})"


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


def _labels(leaks: Leaks) -> Iterator[Finding]:
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
