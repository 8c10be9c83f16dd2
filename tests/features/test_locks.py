"""Who uses a feature set: true for as long as a process does, false as soon as it has ended in whatever way."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from petlbench.features import locks as module
from petlbench.features.locks import USED, exclusive, hold, in_use, last_used
from petlbench.features.maintenance import prune

Use = Callable[[Path], subprocess.Popen[str]]

TWO_DAYS_AGO = time.time() - 2 * 86_400


class TestHolding:
    def test_a_folder_is_made_and_in_use_until_the_lock_ends(self, tmp_path: Path) -> None:
        lock = hold(tmp_path / "a" / "b")
        assert in_use(tmp_path / "a" / "b")
        lock.close()
        assert not in_use(tmp_path / "a" / "b")

    def test_a_lock_that_nobody_keeps_ends(self, tmp_path: Path) -> None:
        hold(tmp_path)
        assert not in_use(tmp_path)

    def test_many_may_hold_one_folder(self, tmp_path: Path) -> None:
        locks = [hold(tmp_path) for _ in range(3)]
        locks[0].close()
        assert in_use(tmp_path)
        with exclusive(tmp_path) as free:
            assert not free

    def test_a_folder_that_nobody_holds_can_be_locked_by_one(self, tmp_path: Path) -> None:
        hold(tmp_path).close()
        with exclusive(tmp_path) as free, exclusive(tmp_path) as again:
            assert (free, again) == (True, False)

    def test_what_is_not_there_is_neither_in_use_nor_locked(self, tmp_path: Path) -> None:
        assert not in_use(tmp_path / "nowhere")
        with exclusive(tmp_path / "nowhere") as free:
            assert not free
        assert not (tmp_path / "nowhere").exists()

    def test_to_open_a_set_is_to_use_it_and_to_look_at_it_is_not(self, tmp_path: Path) -> None:
        hold(tmp_path).close()
        os.utime(tmp_path / USED, (TWO_DAYS_AGO, TWO_DAYS_AGO))
        assert not in_use(tmp_path)
        with exclusive(tmp_path):
            pass
        assert last_used(tmp_path) == pytest.approx(TWO_DAYS_AGO)
        hold(tmp_path).close()
        assert last_used(tmp_path) == pytest.approx(time.time(), abs=60)


class TestLastMoments:
    """A folder is deleted between the steps of somebody else."""

    @pytest.mark.parametrize("step", ["open", "lock"])
    def test_a_folder_that_is_deleted_while_it_is_opened_is_made_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        plain, folder = getattr(module, f"_{step}"), tmp_path / "set"
        deleted: list[Path] = []

        def delete_first(*arguments: object, **options: object) -> object:
            if not deleted:
                deleted.append(folder.rename(tmp_path / "deleted"))
            return plain(*arguments, **options)

        monkeypatch.setattr(module, f"_{step}", delete_first)
        lock = hold(folder)
        assert deleted
        assert in_use(folder)
        lock.close()

    def test_a_folder_that_another_one_has_taken_the_place_of_is_not_locked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain, folder = module._lock_alone, tmp_path / "set"
        hold(folder).close()
        locks = []

        def replace_first(file: BinaryIO) -> bool | None:
            folder.rename(tmp_path / "deleted")
            locks.append(hold(folder))
            return plain(file)

        monkeypatch.setattr(module, "_lock_alone", replace_first)
        with exclusive(folder) as free:
            assert not free
        locks.clear()


def test_a_folder_that_goes_while_it_is_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, left = Path.mkdir, [1]

    def mkdir(self: Path, *args: object, **options: object) -> None:
        if left and left.pop():
            raise FileExistsError(errno.EEXIST, "File exists", str(self))  # as of one that was there, and is gone
        make(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", mkdir)
    hold(tmp_path / "set").close()
    assert (tmp_path / "set" / USED).exists()


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("something else")
    with pytest.raises(FileExistsError):
        hold(tmp_path / "set")


class TestProcesses:
    def test_another_process_is_seen_and_its_death_too(self, tmp_path: Path, use: Use) -> None:
        process = use(tmp_path)
        assert in_use(tmp_path)
        with exclusive(tmp_path) as free:
            assert not free
        process.kill()
        process.wait()
        assert not in_use(tmp_path)

    def test_what_a_process_opens_while_all_is_deleted_again_and_again_stays_until_it_has_done(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "features" / ("0" * 20)
        users = [subprocess.Popen([sys.executable, "-c", OPEN_AND_CLOSE, str(folder)]) for _ in range(2)]
        deleted = 0
        while any(user.poll() is None for user in users):
            deleted += len(prune(tmp_path, 0).sets)
        assert [user.returncode for user in users] == [0, 0]
        prune(tmp_path, 0)
        assert not list((tmp_path / "features").iterdir())
        assert deleted > 3


# What a user has put into the folder is there as long as it holds the lock, and under the folder's own name.
OPEN_AND_CLOSE = """
import os, sys, time
from pathlib import Path
from petlbench.features.locks import hold
folder, end = Path(sys.argv[1]), time.monotonic() + 0.7
while time.monotonic() < end:
    lock = hold(folder)
    mine = folder / f"{os.getpid()}.safetensors"
    mine.write_text("something")
    for _ in range(5):
        assert mine.read_text() == "something"
        time.sleep(0.0005)
    lock.close()
    time.sleep(0.003)
"""


@pytest.fixture(params=["no module", "no locks"])
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that has no such locks, or a file system."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if request.param == "no module":
        monkeypatch.setattr(module, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", refuse)


@pytest.mark.usefixtures("without_locks")
class TestWithoutLocks:
    def test_a_set_counts_as_in_use_for_a_day(self, tmp_path: Path) -> None:
        hold(tmp_path).close()
        assert in_use(tmp_path)
        os.utime(tmp_path / USED, (TWO_DAYS_AGO, TWO_DAYS_AGO))
        assert not in_use(tmp_path)

    def test_only_what_is_older_is_deleted(self, tmp_path: Path) -> None:
        new, old = (tmp_path / "features" / (digit * 20) for digit in "01")
        for folder in (new, old):
            hold(folder).close()
            (folder / "x.safetensors").write_bytes(b"features")
        os.utime(old / USED, (TWO_DAYS_AGO, TWO_DAYS_AGO))
        pruned = prune(tmp_path, 0)
        assert [first.folder for first in pruned.sets] == [old]
        assert [first.folder for first in pruned.stayed] == [new]
        assert new.exists()
        assert not old.exists()


def test_a_cache_that_may_only_be_read_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(tmp_path).close()
    plain = Path.open

    def read_only(path: Path, mode: str = "r", *rest: object) -> object:
        if mode != "rb":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path, mode)

    monkeypatch.setattr(Path, "open", read_only)
    lock = hold(tmp_path)
    assert in_use(tmp_path)
    lock.close()
    assert not in_use(tmp_path)
