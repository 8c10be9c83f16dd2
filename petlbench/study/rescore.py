"""PPE and PME of a whole study, weighed again when every reference is known."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from petlbench.core.errors import InputError, RunError
from petlbench.metrics.efficiency import REFERENCE, score
from petlbench.results.folder import RunFolder
from petlbench.results.result import Result, Scores, iter_results, read_result, write_result
from petlbench.study.status import RunState

__all__ = ["rescore"]


def rescore(states: Sequence[RunState], output: Path) -> int:
    """Give every finished run of a study the PME that belongs to it, whichever run ended first.

    While a study goes on, a run may end before its reference, or find another one of them than it would later. At the
    end all are weighed against the same: the reference of the same dataset and seed, else the nearest.

    Args:
        states: The runs; their results are replaced.
        output: Folder of all results.

    Returns:
        How many results have changed.
    """
    references = list(iter_results(output, REFERENCE))
    changed = 0
    for state in states:
        result = state.result
        if state.status != "finished" or result is None:
            continue
        scores = score(result, sorted(references, key=partial(_distance, result)))
        if scores != result.scores:
            state.result = result.model_copy(update={"scores": scores})
            _store(scores, RunFolder(output, result.run_id))
            changed += 1
    return changed


def _store(scores: Scores, folder: RunFolder) -> None:
    """Change what stands on the disk; a run that is being made again, or is gone, needs none of it."""
    with suppress(RunError, InputError), folder.locked():
        write_result(folder.final, read_result(folder.final).model_copy(update={"scores": scores}))


def _distance(result: Result, other: Result) -> tuple[bool, bool, bool, str]:
    """References in the order in which they are asked: the same data first, then the same seed."""
    one, two = other.config, result.config
    same_data = (one.dataset, one.dataset_settings) == (two.dataset, two.dataset_settings)
    same_split = (one.split, one.split_seed) == (two.split, two.split_seed)
    return (not same_data, not same_split, one.seed != two.seed, other.run_id)
