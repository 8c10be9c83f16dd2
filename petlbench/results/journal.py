"""What is appended and never changed: the journal of attempts, and the log of every reading of a test split."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from petlbench.core.errors import InputError
from petlbench.core.user_files import read_bytes

FILE = "journal.jsonl"
READS_FILE = "test_reads.jsonl"
CONTINUED = "continued"
"""The field of a reading that stands for one that was broken off, of which nothing was kept and so nothing shown."""
# A line is looked for at so many places of one that is damaged.
_MOST_STARTS = 20
_logger = logging.getLogger("petlbench")


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
    return _lines(output / FILE, ("event", "run_id"))


def read_reads(output: Path) -> list[dict[str, Any]]:
    """The log of every reading of a test split: dataset, digest of the split, run id and time."""
    return _lines(output / READS_FILE, ("run_id",))


def _lines(file: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """The lines of a file that have texts of these names; a warning says how many have not."""
    try:
        text = read_bytes(file, what="journal").decode("utf-8", errors="replace")
    except InputError as error:
        if error.kind != "missing_file":
            _logger.warning("passed over: %s", error.message)
        return []
    lines = [_parsed(line, names) for line in text.split("\n") if line.strip()]
    whole = [line for line in lines if line is not None]
    if damaged := len(lines) - len(whole):
        _logger.warning("passed over: %d damaged lines of %s", damaged, file)
    return whole


def _parsed(line: str, names: Sequence[str]) -> dict[str, Any] | None:
    # Behind a line that a full disk cut off, the next one stands on the same line.
    for start in islice(re.finditer(r'\{"', line), _MOST_STARTS):
        with suppress(ValueError, RecursionError):
            values = json.loads(line[start.start() :])
            if all(isinstance(values.get(name), str) for name in names):
                return dict(values)
    return None
