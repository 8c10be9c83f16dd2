"""The folder of a run: worked on by one process at a time, and nothing is left of that."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from petlbench.core.errors import RunError
from petlbench.results.folder import RunFolder


def test_a_lock_is_held_by_one_and_leaves_no_file_of_its_own(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run")
    with folder.locked():
        with pytest.raises(RunError) as caught, RunFolder(tmp_path, "run").locked():
            pass
        assert caught.value.kind == "already_running"
        assert folder.is_locked
        assert not RunFolder(tmp_path, "other").is_locked
    assert not folder.is_locked
    assert not list((tmp_path / ".work").iterdir())


def hold(output: Path) -> int:
    """Take the lock often, making a file that no other process may find meanwhile."""
    count = 0
    for _ in range(50):
        try:
            with RunFolder(output, "run").locked():
                (output / "mark").touch(exist_ok=False)
                (output / "mark").unlink()
                count += 1
        except RunError:
            continue
    return count


def test_processes_that_lock_and_unlock_at_once_never_hold_a_lock_together(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert sum(pool.map(hold, [tmp_path] * 3)) > 0
