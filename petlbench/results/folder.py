"""The folder of a run: found by a name, worked on under another name, and in place only as a whole."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath

from filelock import Timeout

from petlbench.core.errors import InputError, RunError, unknown_name
from petlbench.core.file_lock import QUESTION, is_held, is_unused, locked, remove_unheld
from petlbench.core.text import printable
from petlbench.core.user_files import user_path
from petlbench.results.result import FILE, Result, read_result

_logger = logging.getLogger("petlbench")

_UNFINISHED = ".work"
# Seconds for which the log of a worker that is gone is kept.
_LOGS_KEPT = 7 * 24 * 3600.0


class RunFolder:
    """Where a run's result stands, and where its unfinished state is kept until then.

    The one place where the name of a run becomes a path.

    Raises:
        InputError: When it is no name of a run, as a file of somebody else's may say.
    """

    def __init__(self, output: Path, run_id: str) -> None:
        if not run_id or run_id.startswith(".") or PurePath(run_id).name != run_id or "\0" in run_id:
            raise InputError(
                f"'{printable(run_id)}' is no name of a run",
                hint=f"see petlbench results list --output {output}",
                kind="bad_run_id",
            )
        self.output = output
        self.run_id = run_id
        self.final = output / run_id
        self.work = output / _UNFINISHED / run_id
        self.draft = self.work / "draft"
        self._lock = self.work.with_name(f"{run_id}.lock")
        self.checkpoint = self.work / "checkpoint.pt"  # holds the state of an unfinished training

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from the same run while the block runs.

        Raises:
            RunError: When another process works on the run.
        """
        self.work.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self._lock, QUESTION))
            except Timeout as error:
                raise RunError(
                    f"run {self.run_id} is being worked on by another process",
                    hint=f"wait for it; it writes to {self.work}",
                    kind="already_running",
                ) from error
            yield

    def result(self) -> Result | None:
        """The result that stands; None where there is none.

        Raises:
            InputError: When it is damaged, or newer than this petlbench.
        """
        return read_result(self.final) if (self.final / FILE).exists() else None

    @property
    def is_finished(self) -> bool:
        """Whether a finished result stands."""
        return (result := self.result()) is not None and result.status == "finished"

    def new_draft(self) -> Path:
        """Make an empty folder to write the result's files into."""
        shutil.rmtree(self.draft, ignore_errors=True)
        self.draft.mkdir(parents=True)
        return self.draft

    def publish(self) -> None:
        """Put the draft in the place of the result, replacing an older one."""
        old = self.work / "replaced"
        shutil.rmtree(old, ignore_errors=True)  # left there by a process that was killed just behind its renaming
        if self.final.exists():
            self.final.rename(old)
        self.draft.rename(self.final)
        shutil.rmtree(old, ignore_errors=True)

    @property
    def is_locked(self) -> bool:
        """Whether another process works on the run at this moment."""
        return is_held(self._lock)

    def clear(self) -> None:
        """Remove the unfinished state."""
        shutil.rmtree(self.work, ignore_errors=True)


def readable_result(output: Path, run_id: str) -> Result | None:
    """The result of a run; None where there is none, or none that can be read, which a warning says."""
    try:
        return RunFolder(output, run_id).result()
    except InputError as error:
        _logger.warning("passed over: %s", error.message)
        return None


def remove_leftovers(output: Path) -> None:
    """Remove what killed processes left in an output folder; what a run can go on from stays.

    These are locks that nobody holds and the logs of workers that are gone: empty ones at once, others after a week.
    """
    work = output / _UNFINISHED
    for folder in (work, work / "drivers", output / "studies"):
        remove_unheld(folder)
    for log in work.glob("worker-*-of-*.log"):
        with suppress(OSError), log.open("rb") as opened:
            status = os.fstat(opened.fileno())
            if is_unused(opened) and (status.st_size == 0 or time.time() - status.st_mtime > _LOGS_KEPT):
                log.unlink()


def results_folder(folder: Path | str) -> Path:
    """The folder as a path.

    Raises:
        InputError: When there is no such folder.
    """
    if not (output := Path(folder)).is_dir():
        raise InputError(
            f"--results {output}: there is no such folder",
            hint="give the folder that --output of run and bench named",
            kind="no_results",
        )
    return output


def run_ids(output: Path) -> list[str]:
    """Names of all runs in an output folder, finished or not, in alphabetical order."""
    folders = os.listdir(output) if output.is_dir() else []  # a glob takes seconds of a hundred thousand
    finished = {name for name in folders if os.path.exists(os.path.join(output, name, FILE))}
    begun = {folder.name for folder in (output / _UNFINISHED).glob("*") if folder.is_dir()}
    return sorted(name for name in finished | begun if not name.startswith("."))


def find_run(name: str, output: Path) -> RunFolder:
    """Find the run that a name means: of several whose ids begin so, the newest that is finished, which is said.

    Args:
        name: A run id, the beginning of one, or the folder of a result.
        output: Folder of all results.

    Raises:
        InputError: When no run is meant, or several of which none is finished.
    """
    runs = _matching_runs(name, output)
    if len(runs) > 1:
        results = [(run, readable_result(output, run.run_id)) for run in runs]
        finished = [run for run, result in results if result is not None and result.status == "finished"]
        if not finished:
            raise _ambiguous(name, runs)
        newest = max(finished, key=lambda run: (run.final / FILE).stat().st_mtime)
        _logger.warning("'%s' begins %d runs: %s is the newest finished one", name, len(runs), newest.run_id)
        return newest
    return runs[0]


def only_run(name: str, output: Path) -> RunFolder:
    """Find the one run that a name means, as for `find_run`.

    Raises:
        InputError: When no run, or more than one, is meant.
    """
    runs = _matching_runs(name, output)
    if len(runs) > 1:
        raise _ambiguous(name, runs)
    return runs[0]


def _matching_runs(name: str, output: Path) -> list[RunFolder]:
    folder = user_path(name, what="RUN")
    if (folder / FILE).is_file():
        resolved = folder.resolve()
        return [RunFolder(resolved.parent, resolved.name)]
    if PurePath(name).name == name and (output / name / FILE).is_file():
        return [RunFolder(output, name)]
    runs = run_ids(output)
    matching = [name] if name in runs else [run for run in runs if run.startswith(name)]
    if not matching:
        hint = f"see petlbench results list --output {output}; there are {len(runs)} runs"
        raise unknown_name("run", name, runs, hint=hint)
    return [RunFolder(output, run) for run in matching]


def _ambiguous(name: str, runs: Sequence[RunFolder]) -> InputError:
    more = ", …" if len(runs) > 4 else ""
    return InputError(
        f"'{name}' is the beginning of {len(runs)} runs in {runs[0].output}: "
        f"{', '.join(run.run_id for run in runs[:4])}{more}",
        hint="give more of the run's id",
        kind="ambiguous_run",
    )


def remove_run(folder: RunFolder) -> int:
    """Remove a run's result and its unfinished state.

    Returns:
        How many bytes that freed.

    Raises:
        RunError: When another process works on the run.
    """
    remove_leftovers(folder.output)
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
