"""A worker process, from the outside: started, spoken to, told to stop, killed, and explained when it is dead."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["LostWorker", "WorkerProcess"]

_LOG_LINES = 5
# Seconds in which a process must end that has nothing left to do, or was killed.
_END = 10.0


class LostWorker(Exception):  # noqa: N818 - what happened, and no fault in the program
    """The process at the other end of the pipe is gone."""


class WorkerProcess:
    """One worker process.

    It is started anew, not forked, so that nothing of this process is in it: no threads, no locks, no CUDA context.
    It has a session of its own, so that a Ctrl-C in the terminal reaches the driver alone. What it prints goes to a
    log, since the terminal belongs to the driver.

    Args:
        name: The worker's name.
        log: File that standard output and standard error are appended to; its folder exists.
        cores: The worker's share of the cores; empty for no share.
        environment: Variables that are set for it beside those of this process.
    """

    def __init__(self, name: str, log: Path, *, cores: tuple[int, ...], environment: Mapping[str, str]) -> None:
        self.log = log
        self.pipe, theirs = multiprocessing.Pipe()
        # The interpreter finds modules where this one does, and not first in the folder that it happens to start in.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from petlbench.study.executors.worker import main; "
            f"main({theirs.fileno()}, {name!r}, {cores!r})"
        )
        with theirs, log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def send(self, message: object) -> None:
        """Send a message; whether the worker is there to read it is found out by `receive`."""
        with suppress(OSError):
            self.pipe.send(message)

    def receive(self) -> Any:
        """Return the next message; raise a `LostWorker` where the process is gone."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise LostWorker from error

    @property
    def is_gone(self) -> bool:
        """Whether it was killed by `kill`, or ended by `finish`."""
        return self.pipe.closed

    def interrupt(self) -> None:
        """Ask it to stop what it does, as Ctrl-C would."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once, and wait until it is gone, so that nothing that it held is held any more."""
        self.pipe.close()
        self._process.kill()
        self._process.wait()

    def finish(self) -> None:
        """End it when it has nothing to do; an empty log goes with it."""
        self.pipe.close()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self.kill()
        if self.log.exists() and self.log.stat().st_size == 0:
            self.log.unlink(missing_ok=True)

    def explain_end(self) -> str:
        """Wait for the end of a process that closed its pipe, and say how it ended."""
        try:
            status = self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self.kill()
            return "closed its pipe and went on"
        return _in_words(status)

    def last_words(self) -> str:
        """The last lines of its log; empty where there are none."""
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return "\n".join(lines[-_LOG_LINES:])
        return ""


def _in_words(status: int) -> str:
    if status >= 0:
        return f"ended by itself with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    words = f"was ended by signal {-status} ({name})"
    return words + ": often the kernel, for lack of memory" if -status == signal.SIGKILL else words
