"""What is made of stored results is made without torch, and says so with the modules that it has imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.results.tracking.results import make, store

PROGRAM = """
import contextlib, io, sys
from petlbench.cli.app import run_command
for arguments in {commands!r}:
    with contextlib.redirect_stdout(io.StringIO()):
        status = run_command(arguments)
    assert status == 0, arguments
    assert not {{"torch", "timm", "pandas", "matplotlib", "sklearn", "mlflow"}} & set(sys.modules), arguments
"""


def test_lists_and_reports_of_stored_results_import_nothing_heavy(tmp_path: Path) -> None:
    results = [make(seed=seed) for seed in (0, 1)]
    store(tmp_path, *results)
    first, second = (result.run_id for result in results)
    commands = [
        ["results", "list", "--output", str(tmp_path)],
        ["results", "show", first, "--output", str(tmp_path)],
        ["results", "diff", first, second, "--output", str(tmp_path)],
        ["report", "table1", "--results", str(tmp_path)],
        ["report", "tradeoff", "--results", str(tmp_path)],
        ["results", "rm", first, "--yes", "--output", str(tmp_path)],
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(commands=commands)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
