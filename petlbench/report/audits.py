"""Trivial baselines as standing rows, from stored audits of the datasets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from petlbench.audit.baselines import Baseline
from petlbench.core.errors import InputError
from petlbench.report.context import Context
from petlbench.report.document import Cell, Row, Table

__all__ = ["StoredAudit", "add_baselines", "read_audit", "read_audits"]


_NOTE = (
    "Rows in italics are trivial classifiers, cross-validated on all images of a dataset by petlbench data audit: "
    "what a method gains over the best of them is what counts."
)


@dataclass(frozen=True)
class StoredAudit:
    """What a report needs of an audit.

    Args:
        dataset: The dataset's name.
        marks: ``shortcut``, where the class can be told without a look at the picture; ``easy``, where plain pixels of
            32x32 tell it.
        baselines: The trivial classifiers, each cross-validated over all images.
    """

    dataset: str
    marks: tuple[str, ...]
    baselines: tuple[Baseline, ...]


def read_audits(folder: Path) -> dict[str, StoredAudit]:
    """The audits of a folder by dataset: files NAME.json, as ``petlbench data audit NAME --json`` prints them."""
    return {file.stem: read_audit(file) for file in sorted(folder.glob("*.json"))}


def add_baselines(table: Table, audits: Mapping[str, StoredAudit], context: Context) -> Table:
    """Put the trivial classifiers below the rows of a table."""
    shown = {name: audits[name] for name in context.grid.datasets if name in audits}
    if not shown or context.metric.name != "auc":
        return table
    names = dict.fromkeys(baseline.name for audit in shown.values() for baseline in audit.baselines)
    rows = [Row(f"baseline {name}", name, _cells(name, shown, table), "baseline") for name in names]
    return replace(table, rows=[*table.rows, *rows], notes=[*table.notes, _NOTE])


def read_audit(file: Path) -> StoredAudit:
    """Read what ``petlbench data audit NAME --json`` printed into a file.

    Raises:
        InputError: When there is no such file, or it is no audit.
    """
    remedy = "petlbench data audit NAME --json > FILE writes it"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        marks = tuple(mark for mark in ("shortcut", "easy") if mark in document["verdicts"])
        return StoredAudit(document["dataset"], marks, tuple(map(Baseline.from_document, document["baselines"])))
    except OSError as error:
        raise InputError(f"the audit {file} cannot be read: {error.strerror}", hint=remedy, kind="bad_audit") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no audit of a dataset", hint=remedy, kind="bad_audit") from error


def _cells(name: str, audits: Mapping[str, StoredAudit], table: Table) -> dict[str, Cell]:
    cells = {column.key: Cell(text="–", reason="a trivial classifier has none") for column in table.columns}
    for dataset, audit in audits.items():
        baseline = next((baseline for baseline in audit.baselines if baseline.name == name), None)
        if baseline is None or baseline.auc is None:
            cells[dataset] = Cell(text="–", reason="not in the audit" if baseline is None else baseline.refused)
        else:
            auc, low, high = (None if x is None else 100 * x for x in (baseline.auc, baseline.low, baseline.high))
            cells[dataset] = Cell(auc, f"{auc:.1f}", low, high)
    return cells
