"""The command line: parses, prints, and does nothing else.

Every command imports what it needs when it is called, so that ``--help`` and ``list`` answer at once.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Any, TextIO, cast

from petlbench.core.environment import begin_command, set_thread_defaults


class _Unheard:
    """A standard stream whose reader may go, as ``| head -1`` does: the command goes on to its end without it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._turn_away()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._turn_away()

    def _turn_away(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def main() -> None:
    """Run the command that the process was started with, and exit with its status."""
    begin_command()
    set_thread_defaults()
    # A stream that was closed before (``>&-``) is none at all: nothing is read, and nobody hears.
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 - open until the end
    streams = (stream or open(os.devnull, "w", encoding="utf-8") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    sys.stdout, sys.stderr = (cast("TextIO", _Unheard(cast("TextIO", stream))) for stream in streams)
    from petlbench.cli.app import run_command
    from petlbench.core.interrupt import install_handlers

    install_handlers()
    status = run_command(sys.argv[1:])
    # Behind here Python would go through all that was imported once more, over a second for torch and timm.
    gc.freeze()
    sys.exit(status)
