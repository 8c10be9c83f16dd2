"""A list of the runs of a folder, of which no more is read than it says."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from petlbench.results.folder import results_folder
from petlbench.results.index import Summary, summaries
from petlbench.results.stored import names_with
from petlbench.results.table import read_studies

_logger = logging.getLogger("petlbench")


@dataclass(frozen=True)
class Listing:
    """The runs of a folder.

    Attributes:
        runs: A summary each, in the order of their names.
        names: Names of their datasets, by what configs call them.
        damaged: What is wrong with each result that is passed over.
    """

    runs: list[Summary]
    names: Mapping[str, str]
    damaged: tuple[str, ...]

    def matching(
        self, methods: Collection[str] | None, datasets: Collection[str] | None, statuses: Collection[str] | None
    ) -> list[Summary]:
        """The runs of these methods, on these datasets, with these statuses; None for all."""
        return [
            run
            for run in self.runs
            if (methods is None or run.method in methods)
            and (datasets is None or run.dataset in datasets or self.names[run.dataset] in datasets)
            and (statuses is None or run.status in statuses)
        ]


def list_runs(folder: Path) -> Listing:
    """The runs right below a folder; a damaged result is named in a warning and passed over.

    Raises:
        InputError: When there is no such folder.
    """
    damaged: list[str] = []
    runs = summaries(results_folder(folder), lambda error: damaged.append(error.message))
    for message in damaged:
        _logger.warning("passed over: %s", message)
    studies = read_studies(folder, None).values()
    return Listing(runs, names_with(studies, dict.fromkeys(run.dataset for run in runs)), tuple(damaged))
