"""What stands on the disk of a study's runs already, and whether it may stand beside what is run now."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError, RunError
from petlbench.results.folder import RunFolder
from petlbench.results.result import Result
from petlbench.run.record import code_digests, differences
from petlbench.study.status import RunState

__all__ = ["check_code", "is_worked_on", "mixtures", "stored_result"]

# What two results of one dataset must depend on alike.
_DATA = {"data": "states of the images", "split": "splits", "weights": "weights of the backbone"}


def stored_result(output: Path, run_id: str) -> Result | None:
    """Return the result of a run, if there is one; an InputError says that it is damaged."""
    return RunFolder(output, run_id).result()


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
            same = {name: digests.get(name) for name in ("data", "split", "weights", "method", "external")}
            if changed := differences(digests, {**same, **now(state.planned.method)}):
                stale[state.title] = changed
    if stale:
        first, changed = next(iter(stale.items()))
        what = f"such as {first}: {'; '.join(changed)}"
        message = f"{len(stale)} finished results of this study rest on something else, {what}"
        hint = "--rerun runs all of them again, --accept takes them as they are"
        raise InputError(message, hint=hint, kind="stale_result")


def mixtures(states: Iterable[RunState]) -> list[str]:
    """Return a sentence for each dataset and kind of which finished results do not depend on the same."""
    digests: dict[str, list[dict[str, Any]]] = {}
    for state in states:
        if state.status == "finished" and state.result is not None:
            digests.setdefault(state.planned.dataset, []).append(state.result.digests)
    sentences = []
    for dataset, values in digests.items():
        for name, words in _DATA.items():
            if (count := _count(values, name)) > 1:
                sentences.append(f"{dataset}: the results rest on {count} different {words}")
    if (count := _count(itertools.chain(*digests.values()), "packages")) > 1:
        sentences.append(f"the results were made with {count} different sets of package versions")
    return sentences


def _count(digests: Iterable[dict[str, Any]], name: str) -> int:
    return len({str(values.get(name)) for values in digests})
