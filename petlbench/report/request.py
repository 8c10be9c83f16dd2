"""What a user asks of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from petlbench.report.spec import Preset

__all__ = ["ReportRequest"]


@dataclass(frozen=True)
class ReportRequest:
    """What a user asks of a report.

    Args:
        results: A folder, ``mlflow:URI`` or ``papers:NAME``.
        study: Name of a study; None for all results.
        preset: The standard setting.
        where: Values of the runs' configs by key.
        compare: Whether the papers' figures stand beside.
        columns: Keys of further columns.
        metric: The score.
        figure: The figure of memory.
        against: The method that the others are compared with; None for the report's own.
        audits: Folder of stored audits; None for ``audits`` in the folder of the results.
        x: The cost that a figure shows to the right: memory, parameters or time; None for the report's own.
        measured: Whether memory is that of the results rather than predicted.
    """

    results: str = "results"
    study: str | None = None
    preset: Preset = "any"
    where: Mapping[str, str] = field(default_factory=dict)
    compare: bool = False
    columns: Sequence[str] = ()
    metric: str = "auc"
    figure: str = "allocated"
    against: str | None = None
    audits: Path | None = None
    x: str | None = None
    measured: bool = False

    @property
    def output(self) -> Path | None:
        """The folder of the results; None where they are elsewhere."""
        return None if self.results.startswith(("mlflow:", "papers:")) else Path(self.results)

    @property
    def paper(self) -> str | None:
        """The paper that ``papers:NAME`` names; None for other sources."""
        return self.results.removeprefix("papers:") if self.results.startswith("papers:") else None
