"""The tracker of a run in a process of its own: to import MLflow and to write to its store costs seconds of CPU.

A run tells it what happens in lines of JSON and goes on; only at its end it waits until the store has everything. The
process outlives a run that is killed by as long as it takes to send what it was told, serves the next run of the same
store, and ends by itself.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from petlbench.core.environment import interpreter
from petlbench.results.tracking.send_queue import SendQueue, open_queue
from petlbench.results.tracking.store import Store
from petlbench.results.tracking.tracker import Tracker, points_of

# How long a run that has ended waits: as long as a tracker may at its start and its end, and somewhat more.
_ANSWER_SECONDS = 150.0
# How long the process waits for another run, and how long it may send after the run's own process has gone.
_IDLE_SECONDS, _LAST_SECONDS = 30.0, 60.0

_logger = logging.getLogger("petlbench")


class _Sender:
    """The process that sends to one store, as the run's process sees it.

    Args:
        store: The store, which is opened there alone.
    """

    def __init__(self, store: Store) -> None:
        self.address = _address(store)
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._process = subprocess.Popen(
            interpreter("from petlbench.results.tracking.sender import main; main()"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the run
        )
        threading.Thread(target=self._listen, name="petlbench-tracking", daemon=True).start()
        self.tell({"uri": store.uri, "output": str(store.output.absolute())})

    def _listen(self) -> None:
        with self._process:
            for line in self._process.stdout or ():
                answer = json.loads(line)
                if "warning" in answer:
                    _logger.warning("%s", answer["warning"])
                else:
                    self._answers.put(answer)
            self._answers.put(None)

    @property
    def is_alive(self) -> bool:
        """Whether it can be told more."""
        return self._process.poll() is None

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message; whether it was heard is found out by `answer`."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()

    def answer(self) -> dict[str, Any] | None:
        """What became of the run that has ended; None where the process ended or says nothing."""
        with suppress(queue.Empty):
            return self._answers.get(timeout=_ANSWER_SECONDS)
        return None

    def close(self) -> None:
        """Let it end when it has sent everything."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()


_senders: list[_Sender] = []


def _sender(store: Store) -> _Sender:
    """The process of a store; one that serves another store is let go."""
    if _senders and not (_senders[0].address == _address(store) and _senders[0].is_alive):
        close_sender()
    if not _senders:
        _senders.append(_Sender(store))
    return _senders[0]


def _address(store: Store) -> tuple[object, ...]:
    return store.uri, store.output.absolute(), os.getpid()  # a forked process has its own


@atexit.register
def close_sender() -> None:
    """Let the process end that sends to a store, if there is one; the next run starts another."""
    while _senders:
        _senders.pop().close()


class BackgroundTracker:
    """Where a run reports to, as `Tracker`, whose work is done by another process.

    Args:
        queue: As `open_queue` gives it; nothing is put into it here.

    Attributes:
        delivered: Whether the store has taken everything, once the run has ended.
    """

    def __init__(self, queue: SendQueue) -> None:
        self._queue = queue
        self._messages: list[dict[str, Any]] = []
        self.delivered = False

    def prepare(self) -> None:
        """Start the process, so that MLflow is there when the run has something to say."""
        if not self._queue.is_off:
            with suppress(OSError):
                _sender(self._queue.store)

    def start(
        self, run_id: str, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str], *, group: str = ""
    ) -> None:
        """As `Tracker.start`, but that nothing is waited for."""
        values = {"run_id": run_id, "experiment": experiment, "params": dict(params), "tags": dict(tags)}
        self._tell("start", {**values, "group": group})

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """As `Tracker.log_epoch`, but that nothing is waited for."""
        self._tell("log_epoch", {"epoch": epoch, "metrics": points_of(metrics)})

    def finish(
        self, status: str, metrics: Mapping[str, float], folder: Path | None, *, curve: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """As `Tracker.finish`: waits until the store has everything, or does not answer."""
        place = None if folder is None else str(folder.absolute())
        points = [{"epoch": int(entry["epoch"]), **points_of(entry)} for entry in curve]
        self._tell("finish", {"status": status, "metrics": points_of(metrics), "folder": place, "curve": points})
        if not self._messages:
            return
        answer = _senders[0].answer() if _senders else None
        if answer is None:  # ended from outside: to tell all of it again changes nothing
            self._tell_again()
            answer = _senders[0].answer() if _senders else None
        if answer is None:
            _logger.warning(
                "the process that sends to the MLflow store %s was ended; the result on disk is complete, and "
                "`petlbench results track %s` makes the record from the disk",
                self._queue.place,
                self._messages[0]["run_id"],
            )
        self.delivered = answer is not None and answer["delivered"]

    def _tell(self, call: str, values: dict[str, Any]) -> None:
        if self._queue.is_off:
            return
        self._messages.append({"call": call, **values})
        if len(self._messages) > 1 and not (_senders and _senders[0].is_alive):
            self._tell_again()
            return
        with suppress(OSError):  # no process can be started; the end of the run says so
            _sender(self._queue.store).tell(self._messages[-1])

    def _tell_again(self) -> None:
        """Tell another process all that the run has said."""
        close_sender()
        with suppress(OSError):
            sender = _sender(self._queue.store)
            for message in self._messages:
                sender.tell(message)


def open_tracker(uri: str | None, output: Path) -> BackgroundTracker:
    """The tracker of a run; nothing is started before its first use.

    Arguments and errors are those of `petlbench.results.tracking.send_queue.open_queue`.
    """
    return BackgroundTracker(open_queue(uri, output))


def main() -> None:
    """Send what standard input says, until it ends or nothing comes."""
    messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read, args=(messages,), daemon=True).start()
    _logger.addHandler(_Warnings(logging.WARNING))
    _logger.propagate = False
    if (address := messages.get()) is not None:
        store = Store(address["uri"], Path(address["output"]))
        store.prepare()
        _serve(store, messages)


def _serve(store: Store, messages: queue.Queue[dict[str, Any] | None]) -> None:
    tracker: Tracker | None = None
    with suppress(queue.Empty):
        while (message := messages.get(timeout=_IDLE_SECONDS if tracker is None else None)) is not None:
            call = message.pop("call")
            if call == "start":
                tracker = Tracker(SendQueue(store))
            if message.get("folder") is not None:
                message["folder"] = Path(message["folder"])
            if tracker is not None:
                getattr(tracker, call)(**message)
            if tracker is not None and call == "finish":
                _say({"delivered": tracker.delivered})
                tracker = None


def _read(messages: queue.Queue[dict[str, Any] | None]) -> None:
    for line in sys.stdin.buffer:
        with suppress(ValueError):  # a run that is killed may leave half a line
            messages.put(json.loads(line))
    messages.put(None)
    last = threading.Timer(_LAST_SECONDS, os._exit, [1])  # a store that hangs holds nobody
    last.daemon = True
    last.start()


class _Warnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say({"warning": record.getMessage()})


def _say(answer: Mapping[str, Any]) -> None:
    with suppress(OSError):  # nobody is left who hears
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
