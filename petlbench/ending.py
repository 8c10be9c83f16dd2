"""The result of a run that could not write its own: its process is gone, or was never begun."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from petlbench.config import RunConfig
from petlbench.environment import describe_environment
from petlbench.files import check_writable
from petlbench.journal import Journal
from petlbench.result import FILE, Result, Status, read_result, write_result
from petlbench.run_folder import RunFolder

__all__ = ["record_ending"]


def record_ending(
    config: RunConfig, output: Path, status: Status, error: Mapping[str, str], *, seconds: float = 0.0
) -> Result:
    """Record how a run ended, on behalf of the process that worked on it.

    A finished result is never replaced. The checkpoint, where there is one, stays for the next attempt.

    Args:
        config: The run.
        output: Folder of all results.
        status: How it ended.
        error: Kind, message and hint.
        seconds: How long it took.

    Returns:
        The result that stands now: this one, or the finished one.

    Raises:
        InputError: When the output folder cannot be written to.
        RunError: When another process works on the run (kind ``already_running``).
    """
    check_writable(output)
    folder = RunFolder(output, config.run_id)
    with folder.locked():
        if (folder.final / FILE).exists():
            standing = read_result(folder.final)
            if standing.status == "finished":
                return standing
        result = Result(
            run_id=config.run_id,
            status=status,
            config=config,
            timing={"total": seconds},
            environment=describe_environment(),
            error=dict(error),
        )
        write_result(folder.new_draft(), result)
        folder.publish()
        if not folder.checkpoint.exists():
            folder.clear()
        Journal(output).write("ended", config.run_id, status=status)
    return result
