"""Locks: held by one at a time, whoever removes their files in between."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import Timeout

from petlbench.core.file_lock import is_held, locked, remove_unheld


def test_a_lock_is_there_while_it_is_held_and_no_longer(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    assert not is_held(file)
    with locked(file, 0):
        assert is_held(file)
        with pytest.raises(Timeout), locked(file, 0):
            pass
        assert file.exists()
    assert not file.exists()
    assert not is_held(file)


def test_what_is_removed_is_what_nobody_holds(tmp_path: Path) -> None:
    (tmp_path / "left.lock").touch()
    (tmp_path / ".hidden.lock").touch()
    (tmp_path / "other.txt").touch()
    with locked(tmp_path / "held.lock"):
        remove_unheld(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["held.lock", "other.txt"]
    remove_unheld(tmp_path / "nowhere")


def test_two_never_hold_it_at_once_though_its_file_comes_and_goes(tmp_path: Path) -> None:
    file, inside, most, rounds = tmp_path / "a.lock", [0], [0], [0]
    guard = threading.Lock()

    def work() -> None:
        for _ in range(50):
            with locked(file):
                with guard:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    rounds[0] += 1
                with guard:
                    inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], rounds[0]) == (1, 200)


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    code = "import os\nfrom petlbench.core.file_lock import locked\nfrom pathlib import Path\n"
    code += f"with locked(Path({str(file)!r})):\n    os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert file.exists()
    assert not is_held(file)
    assert not file.exists()
