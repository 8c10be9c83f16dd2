"""The command line: parses, prints, and does nothing else.

Every command imports what it needs when it is called, so that ``--help`` and ``list`` answer at once.
"""

from __future__ import annotations

import sys

from petlbench.core.environment import set_thread_defaults

__all__ = ["main"]


def main() -> None:
    """Run the command that the process was started with, and exit with its status."""
    set_thread_defaults()
    from petlbench.cli.app import run_command
    from petlbench.core.interrupt import install_handlers

    install_handlers()
    sys.exit(run_command(sys.argv[1:]))
