"""What an audit comes to, with how much power it looked, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator

from petlbench.audit.audit import MISSING_GROUPS, TOO_EASY, Audit
from petlbench.audit.baselines import Baseline
from petlbench.report.document import Cell, Column, Table, table_of

NEXT = {
    "shortcut": "See what a class has in common; store all images in one way, or report the gain over this baseline.",
    "shortcut_label": "Leave these labels out of averages, or report the gain over this baseline for each.",
    "file_statistics": "Report the gain over these baselines, and look at borders and brightness of the images below.",
    "easy": "Do not rank methods by this dataset; take a harder one along.",
    "easy_label": "Report labels one by one.",
    "duplicate_leak": "Remove the copies, or give both the same group, and split again.",
    "group_leak": "Split by group: --split random does so where groups are known.",
    "two_labels": "Ask the source for the right label, or leave both images out.",
    "near_two_labels": "Look at the pairs below.",
    "duplicates": "Give the copies one group, so that a split keeps them together.",
    "unreadable": "Repair the files, or leave them out with --skip-corrupt and say so.",
    MISSING_GROUPS: "Add a column with the patient to the table, or say in the paper that patients are not known.",
}
"""What to do about each kind of finding."""


def verdict_of(audit: Audit) -> str:
    """The sentence above everything else; the kinder it is, the more was looked for in vain."""
    grave = [finding.kind for finding in audit.findings if finding.grave]
    others = [finding.kind for finding in audit.findings if not finding.grave]
    if grave:
        return f"A table on this dataset and split should be rejected: {_named(grave)}."
    if others:
        return f"A table on this dataset and split needs a word on {_named(others)}."
    return "Nothing that was looked for speaks against a table on this dataset and split; below stands what could hide."


def checks(audit: Audit) -> Table:
    """What was looked for, what came out, and what could hide all the same."""
    columns = [Column("check", "checked"), *(Column(name, name, numeric=False) for name in ("result", "could hide"))]
    rows: list[list[Cell | str]] = [list(row) for row in _checks(audit)]
    return table_of("checks", "what was checked, and with how much power", columns, rows)


def _checks(audit: Audit) -> Iterator[tuple[str, str, str]]:
    count = sum(sum(counts) for counts in audit.images.values())
    unreadable = len(audit.unreadable)
    yield (
        "files",
        f"{count:,} labels on images that open, {unreadable:,} that do not",
        "wrong labels: nothing here sees them",
    )
    pairs = len(audit.leaks.pairs)
    yield "copies", f"{pairs:,} pairs", "copies that were cropped or turned, and most that were changed strongly"
    if audit.groups is None:
        yield "groups", "each image is one of its own, says the card", "nothing, if the card is right"
    elif audit.groups:
        leaks = f"{len(audit.leaks.groups):,} on two sides"
        yield "groups", f"{audit.groups:,} groups, {leaks}", "one patient under two names"
    else:
        yield "groups", "not known", "images of one patient on two sides, any number of them"
    for baseline in audit.baselines:
        yield f"class told by {baseline.name}", *_power(baseline, count)


def _power(baseline: Baseline, count: int) -> tuple[str, str]:
    """A baseline's figure, and the highest that its interval leaves room for."""
    if baseline.auc is None or baseline.high is None:
        return f"not tried: {baseline.refused}", "any figure"
    text = f"AUC {100 * baseline.auc:.1f} %"
    limit = f"{count:,} images: an AUC of up to {100 * baseline.high:.0f} % is within the interval"
    return text, f"{limit}, and what other models of the same would reach" if baseline.high < TOO_EASY else limit


def next_steps(audit: Audit) -> Table | None:
    """What to do about each finding; None where there is none."""
    kinds = dict.fromkeys(finding.kind for finding in audit.findings if finding.kind in NEXT)
    columns = [Column("kind", "finding"), Column("next", "what to do next", numeric=False)]
    return table_of("next", "what to do next", columns, [[kind, NEXT[kind]] for kind in kinds]) if kinds else None


def _named(kinds: list[str]) -> str:
    return ", ".join(kind.replace("_", " ") for kind in dict.fromkeys(kinds))
