"""A worker process: from the outside, as its driver has it, and from the inside, one job after the other.

Nothing heavy is imported at the top: what must be told to the user's terminal or to torch comes first, and a driver
begins processes before it imports such itself.
"""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from petlbench.core.environment import heavy_imports, interpreter
from petlbench.core.interrupt import install_handlers
from petlbench.study.executors.job import Action, EpochDone, Event, Started

_LOG_LINES = 5
# Seconds in which a process must end that has nothing left to do, or was killed.
_END = 10.0


@dataclass(frozen=True)
class _Role:
    """Which worker a process is.

    Args:
        name: The worker's name.
        cores: Its share of the cores; empty for no share.
        environment: Variables that are set for it beside those of its driver.
    """

    name: str
    cores: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Begun:
    """A process that imports what runs need, and waits to be told which worker it is."""

    process: subprocess.Popen[bytes]
    pipe: Connection

    @classmethod
    def now(cls, output: int | IO[bytes]) -> _Begun:
        """Begin one, whose output goes there until it has a log.

        It is started anew, not forked, so that nothing of this process is in it: no threads, no locks, no CUDA context.
        It has a session of its own, so that a Ctrl-C in the terminal reaches the driver alone.
        """
        ours, theirs = multiprocessing.Pipe()
        with theirs:
            process = subprocess.Popen(
                interpreter(f"from petlbench.study.executors.worker import main; main({theirs.fileno()})"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        return cls(process, ours)

    def end(self) -> None:
        """End it at once, and wait until it is gone."""
        self.pipe.close()
        self.process.kill()
        self.process.wait()


# Those of studies that are being planned, of which their first workers are made.
_begun_ahead: list[_Begun] = []


@contextmanager
def worker_ahead() -> Iterator[None]:
    """A context in which a process imports already what runs need; where no worker is made of it, it ends with it.

    To import torch takes seconds: a study's first run need not wait for that twice, in the driver and in its worker.
    It is one process, since how many runs are due is not known yet: where none is, the study ends at once.
    """
    if os.name != "posix":  # there are no workers
        yield
        return
    _begun_ahead.append(begun := _Begun.now(subprocess.DEVNULL))
    try:
        yield
    finally:
        if begun in _begun_ahead:
            _begun_ahead.remove(begun)
            begun.end()


def _taken() -> _Begun | None:
    """One of those that were begun ahead and are there still; None where there is none."""
    while _begun_ahead:
        if (begun := _begun_ahead.pop(0)).process.poll() is None:
            return begun
        begun.end()
    return None


class WorkerProcess:
    """One worker: no process before its first job, nor when its process was lost.

    What it prints goes to a log, since the terminal belongs to the driver.

    Args:
        name: The worker's name.
        cores: The worker's share of the cores; empty for no share.
        environment: Variables that are set for it beside those of this process.
    """

    log: Path
    pipe: Connection

    def __init__(self, name: str, cores: tuple[int, ...] = (), environment: Mapping[str, str] | None = None) -> None:
        self._role = _Role(name, cores, environment or {})
        self._begun: _Begun | None = None

    @property
    def name(self) -> str:
        """The worker's name."""
        return self._role.name

    def start(self, log: Path) -> None:
        """Start its process, unless there is one; output is appended to a file in a folder that exists."""
        import fcntl  # which Windows has not

        if self._begun is not None:
            return
        self.log = log
        with log.open("ab") as output:
            # The worker has the same file open, and holds its lock for as long as it lives.
            fcntl.flock(output, fcntl.LOCK_SH)
            self._begun = _taken() or _Begun.now(output)
            self.pipe = self._begun.pipe
            self.send(self._role)
            with suppress(OSError, RuntimeError):  # it is gone, which `receive` says
                reduction.send_handle(self.pipe, output.fileno(), self._begun.process.pid)

    def send(self, message: object) -> None:
        """Send a message; whether the worker is there to read it is found out by `receive`."""
        with suppress(OSError):
            self.pipe.send(message)

    def receive(self) -> Event | str:
        """Return the next message; of a process that closed its pipe, once it is gone, how it ended."""
        with suppress(EOFError, OSError, pickle.UnpicklingError):
            event: Event = self.pipe.recv()
            return event
        try:
            status = self._begun.process.wait(_END) if self._begun is not None else -signal.SIGKILL
        except subprocess.TimeoutExpired:
            self.kill()
            return "closed its pipe and went on"
        if status >= 0:
            return f"ended by itself with exit status {status}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else "unknown"
        words = f"was ended by signal {-status} ({name})"
        return words + ": often the kernel, for lack of memory" if -status == signal.SIGKILL else words

    def interrupt(self) -> bool:
        """Ask it to stop what it does, as Ctrl-C would; false where it was ended before."""
        if self._begun is not None:
            self._begun.process.send_signal(signal.SIGINT)
        return self._begun is not None

    def kill(self) -> None:
        """End it at once, and wait until it is gone, so that nothing that it held is held any more."""
        if self._begun is not None:
            self._begun.end()
            self._begun = None

    def finish(self) -> None:
        """End it when it has nothing to do; an empty log goes with it."""
        if self._begun is None:
            return
        self.pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._begun.process.wait(_END)
        self.kill()
        if self.log.exists() and self.log.stat().st_size == 0:
            self.log.unlink(missing_ok=True)

    def last_words(self) -> str:
        """The last lines of its log; empty where there are none."""
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return "\n".join(lines[-_LOG_LINES:])
        return ""


def main(handle: int) -> None:
    """Work for the driver at the other end of a pipe."""
    os.set_inheritable(handle, False)  # what a run starts must not hold the pipe open when this process is gone
    faulthandler.enable()
    install_handlers()
    try:
        _Worker(Connection(handle)).serve()
    except KeyboardInterrupt:
        sys.exit(0)


class _Worker:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._all_cores = tuple(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ()
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._has_imported = threading.Event()

    def serve(self) -> None:
        """Carry out jobs until a run is interrupted or the driver closes the pipe."""
        threading.Thread(target=self._listen, daemon=True).start()
        with heavy_imports():
            from petlbench.run.parts import KeptParts
            from petlbench.study.executors.run_job import perform

        self._has_imported.set()
        role: _Role = self._inbox.get()
        os.environ.update(role.environment)
        kept_parts, is_warm = KeptParts(), False
        while True:
            job, spent = self._inbox.get()
            if role.cores:  # keep to the share of the cores, unless the run's threads need more than that
                _pin(role.cores if len(role.cores) >= job.config.threads else self._all_cores)
            self._tell(Started(role.name))
            ended = perform(job, self._ask, spent=spent, kept_parts=kept_parts)
            clean_up()
            if not is_warm:  # what is there now stays, and to look at it after each run takes longer than a small run
                is_warm = True
                gc.freeze()
            self._tell(ended)
            if ended.status == "interrupted":
                return

    def _listen(self) -> None:
        """Take what the driver sends; when it is gone, nobody waits for this process any more."""
        try:
            self._inbox.put(self._pipe.recv())
            _print_into(reduction.recv_handle(self._pipe))
            self._has_imported.wait()  # to unpickle a job imports the same, and two threads at that come to grief
            while True:
                self._inbox.put(self._pipe.recv())
        except (EOFError, OSError):
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def _ask(self, event: Event) -> Action:
        self._tell(event)
        if not isinstance(event, EpochDone):
            return Action.GO_ON
        answer: Action = self._inbox.get()
        return answer

    def _tell(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except OSError:  # inside a run this would be taken for a fault of the run
            os._exit(0)


def _print_into(log: int) -> None:
    """Let all that this process prints go to an open file, whose handle is closed then."""
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)


def _pin(cores: Iterable[int]) -> None:
    """Keep every thread of this process to some cores, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        return
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cores)
        except OSError:  # the thread has ended, or the core was taken away: it works all the same
            continue


def clean_up() -> None:
    """Give back what a run held, so that the next one finds the memory that it would find in a process of its own."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
