"""Finding, comparing and removing what stands of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from petlbench.core.errors import InputError, unknown_name
from petlbench.results.folder import RunFolder
from petlbench.results.result import FILE, Result
from petlbench.results.stored import flat

__all__ = ["compare_results", "find_run", "remove_run", "run_ids"]

_UNFINISHED = ".work"
_COMPARED = ("status", "config", "data", "preprocessing", "digests", "environment", "parameters", "metrics", "memory")


def run_ids(output: Path) -> list[str]:
    """Names of all runs in an output folder, finished or not, in alphabetical order."""
    finished = {file.parent.name for file in output.glob(f"*/{FILE}")}
    begun = {folder.name for folder in (output / _UNFINISHED).glob("*") if folder.is_dir()}
    return sorted(finished | begun)


def find_run(name: str, output: Path) -> RunFolder:
    """Find the run that a name means.

    Args:
        name: A run id, the beginning of one that no other has, or the folder of a result.
        output: Folder of all results.

    Raises:
        InputError: When no run, or more than one, is meant.
    """
    folder = Path(name).expanduser()
    if (folder / FILE).is_file():
        resolved = folder.resolve()
        return RunFolder(resolved.parent, resolved.name)
    runs = run_ids(output)
    matching = [name] if name in runs else [run for run in runs if run.startswith(name)]
    if len(matching) > 1:
        raise InputError(
            f"'{name}' is the beginning of {len(matching)} runs in {output}: {', '.join(matching[:4])}"
            + (", …" if len(matching) > 4 else ""),
            hint="give more of the run's id",
            kind="ambiguous_run",
        )
    if not matching:
        hint = f"see petlbench results list --output {output}; there are {len(runs)} runs"
        raise unknown_name("run", name, runs, hint=hint)
    return RunFolder(output, matching[0])


def remove_run(folder: RunFolder) -> int:
    """Remove a run's result and its unfinished state.

    Returns:
        How many bytes that freed.

    Raises:
        RunError: When another process works on the run.
    """
    with folder.locked():
        freed = _size(folder.final) + _size(folder.work)
        if folder.final.exists():
            # Gone by name first, so that no half of a result is ever seen.
            gone = folder.new_draft() / "removed"
            folder.final.rename(gone)
        folder.clear()
    return freed


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def compare_results(first: Result, second: Result) -> dict[str, tuple[Any, Any]]:
    """In what two results differ: what they are runs of, what they depend on, where they ran, and what came out.

    Returns:
        The two values, None where one is absent, by their place in ``result.json`` with dots between the levels.
    """
    documents = [result.document() for result in (first, second)]
    left, right = (flat({name: document[name] for name in _COMPARED}) for document in documents)
    pairs = {name: (left.get(name), right.get(name)) for name in [*left, *right]}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
