"""The journal of attempts: one line for whatever a run began, reached or ended, appended and never changed."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

__all__ = ["FILE", "Journal", "read_journal"]

FILE = "journal.jsonl"

# How a line begins: behind one that a full disk cut off, the next one stands on the same line.
_START = '{"time": '


class Journal:
    """Appends to the journal of an output folder.

    Several processes may write at once: a line goes to the file in one piece, and is on the disk before the writer
    goes on.
    """

    def __init__(self, output: Path) -> None:
        self._file = output / FILE

    def write(self, event: str, run_id: str, **facts: Any) -> None:
        """Append one line.

        Args:
            event: ``started``, ``epoch`` or ``ended``.
            run_id: The run.
            facts: What else is to be known, as plain values.
        """
        what = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, "run_id": run_id}
        line = what | facts | {"host": socket.gethostname(), "pid": os.getpid()}
        handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(handle, (json.dumps(line) + "\n").encode())
            os.fsync(handle)
        finally:
            os.close(handle)


def read_journal(output: Path) -> list[dict[str, Any]]:
    """Read the journal of an output folder.

    Returns:
        Its lines, oldest first; none where there is no journal. What a full disk cut off is left out.
    """
    try:
        lines = (output / FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    whole = (_START + line.rpartition(_START)[2] for line in lines if line.endswith("}"))
    return [json.loads(line) for line in whole]
