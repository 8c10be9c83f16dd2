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
from petlbench.report.request import Material

__all__ = ["StoredAudit", "add_baselines", "find_audits", "marks_of", "read_audit"]


_NOTE = (
    "Rows in italics are trivial classifiers, cross-validated on all images of a dataset by petlbench data audit: "
    "what a method gains over the best of them is what counts."
)


def find_audits(material: Material) -> dict[str, StoredAudit]:
    """Read the stored audits: files NAME.json, as ``petlbench data audit NAME --json`` prints them.

    Args:
        material: Whose option, or whose folder of results, says where they lie.

    Returns:
        The audits by the dataset's name.
    """
    output = material.asked.output
    folder = material.asked.audits or (output / "audits" if output is not None else None)
    return {} if folder is None or not folder.is_dir() else _read(folder)


def marks_of(audits: Mapping[str, StoredAudit]) -> dict[str, tuple[str, ...]]:
    """What audits marked the datasets with: ``shortcut``, ``easy``."""
    return {
        name: tuple(mark for mark, is_so in (("shortcut", one.shortcut), ("easy", one.easy)) if is_so)
        for name, one in audits.items()
    }


def add_baselines(table: Table, audits: Mapping[str, StoredAudit], context: Context) -> Table:
    """Put the trivial classifiers below the rows of a table.

    Args:
        table: The table.
        audits: Audits by dataset.
        context: What the table shows.
    """
    known = {name: audits[name] for name in context.grid.datasets if name in audits}
    if not known or context.metric.name != "auc":
        return table
    names = list(dict.fromkeys(one.name for audit in known.values() for one in audit.baselines))
    rows = [Row(f"baseline {name}", name, _cells(name, known, table), "baseline") for name in names]
    return replace(table, rows=[*table.rows, *rows], notes=[*table.notes, _NOTE])


def _cells(name: str, audits: Mapping[str, StoredAudit], table: Table) -> dict[str, Cell]:
    cells = {column.key: Cell(text="–", reason="a trivial classifier has none") for column in table.columns}
    for dataset, audit in audits.items():
        one = next((one for one in audit.baselines if one.name == name), None)
        if one is None or one.auc is None:
            cells[dataset] = Cell(text="–", reason=one.refused if one is not None else "not in the audit")
        else:
            low, high = (None if bound is None else 100 * bound for bound in (one.low, one.high))
            cells[dataset] = Cell(100 * one.auc, f"{100 * one.auc:.1f}", low, high)
    return cells


def _read(folder: Path) -> dict[str, StoredAudit]:
    return {file.stem: read_audit(file) for file in sorted(folder.glob("*.json"))}


@dataclass(frozen=True)
class StoredAudit:
    """What a report needs of an audit.

    Args:
        dataset: The dataset's name.
        shortcut: Whether the class can be told without a look at the picture.
        easy: Whether plain pixels of 32x32 tell the class.
        baselines: The trivial classifiers, each cross-validated over all images.
    """

    dataset: str
    shortcut: bool
    easy: bool
    baselines: tuple[Baseline, ...]


def read_audit(file: Path) -> StoredAudit:
    """Read what ``petlbench data audit NAME --json`` printed into a file.

    Args:
        file: The JSON document.

    Raises:
        InputError: When there is no such file, or it is no audit.
    """
    remedy = "petlbench data audit NAME --json > FILE writes it"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        verdicts = document["verdicts"]
        baselines = tuple(Baseline(**one) for one in document["baselines"])
        return StoredAudit(document["dataset"], "shortcut" in verdicts, "easy" in verdicts, baselines)
    except OSError as error:
        raise InputError(f"the audit {file} cannot be read: {error.strerror}", hint=remedy, kind="bad_audit") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no audit of a dataset", hint=remedy, kind="bad_audit") from error
