"""Trivial baselines as standing rows, from stored audits of the datasets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.core.user_files import read_bytes
from petlbench.report.context import Context
from petlbench.report.document import Cell, Row, Table

_NOTE = (
    "Rows in italics are trivial classifiers, cross-validated on all images of a dataset by petlbench data audit: "
    "what a method gains over the best of them is what counts."
)


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class StoredBaseline(_Part):
    """What a report needs of a trivial classifier, cross-validated over all images; scores are fractions."""

    name: str
    auc: float | None = None
    low: float | None = None
    high: float | None = None
    refused: str = Field("", description="why there is no score")


class StoredAudit(_Part):
    """What a report needs of an audit."""

    dataset: str
    verdicts: list[str]
    baselines: list[StoredBaseline]

    @property
    def marks(self) -> tuple[str, ...]:
        """``shortcut``: the class can be told without a look at the picture; ``easy``: pixels of 32x32 tell it."""
        return tuple(mark for mark in ("shortcut", "easy") if mark in self.verdicts)


def read_audits(folder: Path, on_damage: Callable[[str], None]) -> dict[str, StoredAudit]:
    """The audits of a folder by dataset: files NAME.json, as ``petlbench data audit NAME --json`` prints them.

    What is wrong with a file that is none goes to ``on_damage``; the others are read.
    """
    audits = {}
    for file in sorted(folder.glob("*.json")):
        try:
            audits[file.stem] = read_audit(file)
        except InputError as error:
            on_damage(error.message)
    return audits


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
        return StoredAudit.model_validate_json(read_bytes(file, what="audit"))
    except InputError as error:
        raise InputError(error.message, hint=remedy, kind="bad_audit") from error
    except ValidationError as error:
        raise InputError(f"{printable(str(file))} is no audit of a dataset", hint=remedy, kind="bad_audit") from error


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
