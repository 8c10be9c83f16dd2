"""What a user asks of a report, and the results that it is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.report.selection import choose
from petlbench.report.spec import ReportCard, Setting
from petlbench.results.planned import PlannedRuns, read_reads
from petlbench.results.stored import Stored
from petlbench.results.table import Results, load_results, load_trials

__all__ = ["Asked", "Material", "gather", "paper_of"]


@dataclass(frozen=True)
class Asked:
    """What a user asks for.

    Args:
        results: A folder, ``mlflow:URI`` or ``papers:NAME``.
        study: Name of a study; None for all results.
        setting: The standard setting.
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
    setting: Setting = "any"
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


@dataclass(frozen=True)
class Material:
    """What a report is made from.

    Args:
        card: The report.
        asked: What the user asks for.
        catalog: The catalogues.
        results: Results of the setting that was asked for, unfinished ones too.
        references: Finished runs of full fine-tuning in any setting, of other studies too.
        wanted: What studies asked for.
        progress: Told what goes on.
    """

    card: ReportCard
    asked: Asked
    catalog: Catalog
    results: Sequence[Stored] = ()
    references: Sequence[Stored] = ()
    wanted: PlannedRuns = field(default_factory=PlannedRuns)
    progress: Progress = field(default_factory=Progress)

    @property
    def finished(self) -> list[Stored]:
        """Results of runs that ended well."""
        return [one for one in self.results if one.finished]

    def trials(self) -> Sequence[Stored]:
        """Trials of searches, of all studies or of the one that was asked for."""
        output = self.asked.output
        return [] if output is None else load_trials(output).runs

    def reads(self) -> list[dict[str, Any]]:
        """The log of test reads."""
        output = self.asked.output
        return [] if output is None else read_reads(output)

    @property
    def source(self) -> str:
        """Where the results came from, in words."""
        study = f", study {self.asked.study}" if self.asked.study else ""
        return f"{self.asked.results}{study}: {len(self.finished)} finished of {len(self.results)} results"


def paper_of(results: str) -> str | None:
    """The paper that ``papers:NAME`` names; None for other sources."""
    return results.removeprefix("papers:") if results.startswith("papers:") else None


def gather(card: ReportCard, asked: Asked, catalog: Catalog, progress: Progress) -> Material:
    """Read the results that a report is asked of.

    Args:
        card: The report.
        asked: What the user asks for.
        catalog: The catalogues.
        progress: Told what goes on.

    Raises:
        InputError: When there are none.
    """
    output = asked.output
    results = _tracked(asked) if output is None else load_results(output, asked.study)
    chosen = choose(results.runs, asked.setting, asked.where, asked.results)
    return Material(card, asked, catalog, chosen, results.references, results.planned, progress)


def _tracked(asked: Asked) -> Results:
    from petlbench.results.tracking.read import read_tracked

    uri = asked.results.removeprefix("mlflow:")
    if not uri:
        raise InputError(
            "--results mlflow: names no store",
            hint="for example --results mlflow:sqlite:///results/mlflow.db --study bench",
            kind="bad_tracking_uri",
        )
    return Results.of(map(Stored, read_tracked(uri, asked.study or "petlbench")))
