"""The command line: parses, prints, and does nothing else.

Every command imports what it needs when it is called, so that ``--help`` and ``list`` answer at once.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that the process was started with, and exit with its status."""
    # By default torch's threads spin while they wait. On a shared machine they then take the cores from those that they
    # wait for, and a run can become ten times slower. Asleep at once, they take longer to wake than a small product
    # takes: about 15 microseconds of spinning make a small network's step a quarter faster on two free cores, and as
    # much slower where two processes share them. OpenMP reads this once, when torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Without a fixed workspace cuBLAS may choose another algorithm, and other last bits, from call to call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from petlbench.cli.app import run_command
    from petlbench.core.interrupt import install_handlers

    install_handlers()
    sys.exit(run_command(sys.argv[1:]))
