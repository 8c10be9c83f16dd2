"""What stands on the disk of a study's runs already, and whether it may stand beside what is run now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError, RunError
from petlbench.results.folder import RunFolder
from petlbench.results.result import FILE, Result, read_result
from petlbench.run.digests import code_digests, differences
from petlbench.study.status import RunState
from petlbench.study.study_file import read_study

__all__ = ["check_code", "is_worked_on", "mixtures", "stored_result", "study_results"]

# What two results of one dataset must have rested on alike.
_DATA = ("data", "split", "weights")


def stored_result(output: Path, run_id: str) -> Result | None:
    """Read the result of a run, if there is one.

    Raises:
        InputError: When it is damaged.
    """
    folder = RunFolder(output, run_id).final
    return read_result(folder) if (folder / FILE).exists() else None


def study_results(output: Path, name: str) -> list[Result]:
    """Read the results of all runs that a study wants, whoever asked for them.

    Args:
        output: Folder of all results.
        name: The study.

    Raises:
        InputError: When there is no such study, or a result is damaged.
    """
    run_ids = [run["run_id"] for run in read_study(output, name)["runs"] if run["run_id"] is not None]
    results = (stored_result(output, run_id) for run_id in dict.fromkeys(run_ids))
    return [result for result in results if result is not None]


def is_worked_on(output: Path, run_id: str) -> bool:
    """Whether another process works on a run at this moment."""
    folder = RunFolder(output, run_id)
    if not folder.work.parent.exists():
        return False
    try:
        with folder.locked():
            return False
    except RunError:
        return True


def check_code(states: Iterable[RunState], catalog: Catalog) -> None:
    """See that finished results were made by this code, so that a table does not mix two versions of it.

    Data and weights are not read for that: a run that is carried out checks its own, and `mixtures` compares them all.

    Args:
        states: The runs of a study.
        catalog: The catalogues.

    Raises:
        InputError: When some were not.
    """

    @cache
    def now(method: str) -> dict[str, Any]:
        return code_digests(method, catalog)

    stale = {}
    for state in states:
        if state.status == "finished" and state.result is not None:
            digests = state.result.digests
            if changed := differences(digests, {**_without_code(digests), **now(state.planned.method)}):
                stale[state.title] = changed
    if stale:
        first, changed = next(iter(stale.items()))
        raise InputError(
            f"{len(stale)} finished results of this study rest on something else, such as {first}: "
            f"{'; '.join(changed)}",
            hint="--rerun runs all of them again, --accept takes them as they are",
            kind="stale_result",
        )


def _without_code(digests: dict[str, Any]) -> dict[str, Any]:
    """The digests of data and weights, which are compared with themselves."""
    return {name: digests.get(name) for name in ("data", "split", "weights", "method", "external")}


def mixtures(states: Sequence[RunState]) -> list[str]:
    """Say which finished results of a study do not rest on the same data, weights and code.

    Args:
        states: Its runs.

    Returns:
        One sentence for each dataset and kind; none where all agree.
    """
    finished = [state for state in states if state.status == "finished" and state.result is not None]
    sentences = []
    for dataset in dict.fromkeys(state.planned.dataset for state in finished):
        results = [state.result for state in finished if state.planned.dataset == dataset and state.result is not None]
        for name in _DATA:
            groups = {str(result.digests.get(name)) for result in results}
            if len(groups) > 1:
                sentences.append(f"{dataset}: the results rest on {len(groups)} different {_WORDS[name]}")
    if len(groups := {str(state.result.digests.get("packages")) for state in finished if state.result is not None}) > 1:
        sentences.append(f"the results were made with {len(groups)} different sets of package versions")
    return sentences


_WORDS = {"data": "states of the images", "split": "splits", "weights": "weights of the backbone"}
