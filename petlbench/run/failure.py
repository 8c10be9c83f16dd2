"""The result of a run that could not write its own: its process is gone, or was never begun."""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from petlbench.core.config import RunConfig
from petlbench.core.environment import describe_environment
from petlbench.core.errors import PetlbenchError, RunError, Stopped
from petlbench.core.files import check_writable
from petlbench.memory.out_of_memory import describe_shortage, is_shortage
from petlbench.results.folder import RunFolder
from petlbench.results.journal import write_event
from petlbench.results.result import Result, Status, write_result
from petlbench.training.evaluation import Labels, Logits


def record_ending(
    config: RunConfig, output: Path, status: Status, error: Mapping[str, str], *, seconds: float = 0.0
) -> Result:
    """Record how a run ended, on behalf of the process that worked on it.

    A finished result is never replaced. The checkpoint, where there is one, stays for the next attempt.

    Returns:
        The result that stands now: this one, or the finished one.

    Raises:
        InputError: When the output folder cannot be written to.
        RunError: When another process works on the run (kind ``already_running``).
    """
    check_writable(output)
    folder = RunFolder(output, config.run_id)
    with folder.locked():
        if (standing := folder.result()) is not None and standing.status == "finished":
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
        write_event(output, "ended", config.run_id, status=status)
    return result


@contextmanager
def explained(config: RunConfig) -> Iterator[None]:
    """Say in words what went wrong while a run was built.

    Raises:
        RunError: When memory was too short, or the method's code asked the program to end.
    """
    try:
        yield
    except SystemExit as error:  # of a user's method: it would end the program as if all were done
        raise RunError(
            f"the code of {config.method} asked the program to end (SystemExit: {error.code})",
            hint="take sys.exit() out of it",
            kind="exception",
        ) from error
    except Exception as error:
        if is_shortage(error):
            raise shortage_while_building(error, config) from error
        raise


_GOES_ON = "the same command goes on from here"


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Args:
        status: The result's status.
        outputs: Labels (N,) and logits (N, C) by split, for a finished run.
        error: What went wrong, for the others.
        resumable: Whether the same command can go on from the last checkpoint.
    """

    status: Status
    outputs: Mapping[str, tuple[Labels, Logits]] = field(default_factory=dict)
    error: dict[str, str] | None = None
    resumable: bool = False


def describe_failure(error: BaseException, config: RunConfig) -> Ending:
    """Turn whatever stopped a run into an ending that says so."""
    if isinstance(error, KeyboardInterrupt):
        stop = {"kind": "interrupted", "message": "stopped by the user", "hint": _GOES_ON}
        return Ending("interrupted", error=stop, resumable=True)
    if isinstance(error, Stopped):
        resumable = error.status != "pruned"
        stop = {"kind": error.status, "message": error.message, "hint": _GOES_ON if resumable else ""}
        return Ending(cast("Status", error.status), error=stop, resumable=resumable)
    if is_shortage(error):
        return Ending("oom", error=_describe_out_of_memory(error, config))
    if isinstance(error, OSError):
        message = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        hint = "mend that (room on the disk?); the same command goes on from the last epoch"
        return Ending("failed", error={"kind": "io", "message": message, "hint": hint}, resumable=True)
    if isinstance(error, PetlbenchError):
        return Ending("failed", error={"kind": error.kind, "message": error.message, "hint": error.hint})
    fault = {
        "kind": "exception",
        "message": f"{type(error).__name__}: {error}",
        "hint": "the traceback stands in result.json",
        "traceback": "".join(traceback.format_exception(error)),
    }
    return Ending("failed", error=fault)


def shortage_while_building(error: BaseException, config: RunConfig) -> RunError:
    """The error of a run whose backbone alone does not fit; there is nothing yet that a result could be made of."""
    shortage = _describe_out_of_memory(error, config)
    message = shortage["message"].replace("out of memory", f"out of memory while building {config.backbone}", 1)
    return RunError(message, hint=shortage["hint"], kind="oom")


def _describe_out_of_memory(error: BaseException, config: RunConfig) -> dict[str, str]:
    shortage = describe_shortage(error)
    first_line = (str(error) or type(error).__name__).splitlines()[0]
    more = "a smaller --image-size" + (" or --precision bf16" if config.precision == "fp32" else "")
    hint = f"{_memory_command(config, shortage)} names the largest --batch-size that fits; {more} takes less, too"
    return {"kind": "oom", "message": f"out of memory: {first_line}", "hint": hint, **shortage}


def _memory_command(config: RunConfig, shortage: Mapping[str, str]) -> str:
    """The command that finds what fits, into all that the device has where that was said."""
    total = shortage.get("total", "")
    words = ["petlbench", "memory", "--method", config.method, "--dataset", config.dataset]
    words += ["--backbone", config.backbone, "--image-size", str(config.image_size), "--precision", config.precision]
    return shlex.join([*words, "--budget", total.replace(" ", "") if total.endswith("iB") else "SIZE"])
