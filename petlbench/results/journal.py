"""What is appended and never changed: the journal of attempts, and the log of every reading of a test split."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["FILE", "append_line", "read_journal", "read_reads", "write_event"]

FILE = "journal.jsonl"
_READS = "test_reads.jsonl"


def write_event(output: Path, event: str, run_id: str, **facts: Any) -> None:
    """Append to the journal of an output folder that a run has ``started``, ended an ``epoch``, or ``ended``."""
    what = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, "run_id": run_id}
    append_line(output / FILE, what | facts | {"host": socket.gethostname(), "pid": os.getpid()})


def append_line(file: Path, line: dict[str, Any]) -> None:
    """Append plain values to a file of JSON lines.

    Several processes may write at once: a line goes to the file in one piece, and is on the disk before the writer
    goes on.
    """
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(handle, (json.dumps(line) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read_journal(output: Path) -> list[dict[str, Any]]:
    """The journal of an output folder, oldest line first; none where there is no journal."""
    return _lines(output / FILE)


def read_reads(output: Path) -> list[dict[str, Any]]:
    """The log of every reading of a test split: dataset, digest of the split, run id and time."""
    return _lines(output / _READS)


def _lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; behind one that a full disk cut off, the next one stands on the same line."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        with suppress(ValueError):
            lines.append(json.loads(line[line.rfind('{"') :]))
    return lines
