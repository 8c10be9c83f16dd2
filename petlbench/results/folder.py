"""The folder of a run: found by a name, worked on under another name, and in place only as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from filelock import FileLock, Timeout

from petlbench.core.errors import InputError, RunError, unknown_name
from petlbench.core.text import printable
from petlbench.results.result import FILE, Result, read_result

__all__ = ["RunFolder", "find_run", "remove_run", "run_ids"]

_UNFINISHED = ".work"


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
        self.checkpoint = self.work / "checkpoint.pt"  # holds the state of an unfinished training

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from the same run while the block runs.

        Raises:
            RunError: When another process works on the run.
        """
        self.work.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.work.with_name(f"{self.run_id}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunError(
                f"run {self.run_id} is being worked on by another process",
                hint=f"wait for it; it writes to {self.work}",
                kind="already_running",
            ) from error
        try:
            yield
        finally:
            # The empty file stays: were it removed, a process that waits for it and one that makes it anew would both
            # hold the lock.
            lock.release()

    def result(self) -> Result | None:
        """The result that stands; None where there is none.

        Raises:
            InputError: When it is damaged, or newer than this petlbench.
        """
        return read_result(self.final) if (self.final / FILE).exists() else None

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
        if not self.work.parent.exists():
            return False
        try:
            with self.locked():
                return False
        except RunError:
            return True

    def clear(self) -> None:
        """Remove the unfinished state."""
        shutil.rmtree(self.work, ignore_errors=True)


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
