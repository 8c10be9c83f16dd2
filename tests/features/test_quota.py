"""The quota of the cache: what does not fit is refused with its figures, before anything is written or deleted."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from petlbench.core.errors import InputError
from petlbench.core.units import readable_size
from petlbench.features.locks import hold
from petlbench.features.maintenance import CacheConfig, check_quota, enforce_quota, free_bytes, list_sets

MakeSet = Callable[..., Path]
Use = Callable[[Path], subprocess.Popen[str]]
MIB = 2**20


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the disk seem to have so many bytes free."""
    return lambda free: monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


class TestDisk:
    def test_the_disk_of_a_folder_that_is_not_there_is_that_of_the_nearest_one(self, tmp_path: Path) -> None:
        assert free_bytes(tmp_path / "a" / "b" / "c") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)

    def test_what_fits_is_let_through_and_a_byte_more_is_not(self, cache: Path, disk: Callable[[int], None]) -> None:
        disk(5 * MIB)
        check_quota(CacheConfig(cache), None, 5 * MIB)
        with pytest.raises(InputError) as refusal:
            check_quota(CacheConfig(cache), None, 5 * MIB + 1)
        error = refusal.value
        assert (error.kind, error.exit_status) == ("no_room", 2)
        assert f"5.00 MiB to {cache}" in error.message
        assert "5.00 MiB free" in error.message
        for step in ("--cache-dir", "petlbench cache prune", "--no-preload", "--cache-precision"):
            assert step in error.hint
        assert not cache.exists()

    def test_nothing_needs_no_room(self, cache: Path, disk: Callable[[int], None]) -> None:
        disk(0)
        check_quota(CacheConfig(cache), None, 0)

    def test_a_folder_that_cannot_be_made_is_refused(self, cache: Path) -> None:
        cache.write_text("a file")
        with pytest.raises(InputError, match="is a file") as refusal:
            check_quota(CacheConfig(cache / "below"), None, 1)
        assert "--cache-dir" in refusal.value.hint


class TestBound:
    def test_sets_that_nobody_uses_make_room(self, cache: Path, make_set: MakeSet) -> None:
        own, other = make_set("own", used=1e6), make_set("other", used=2e6)
        size = list_sets(cache)[0][0].bytes
        config = CacheConfig(cache, most=size + 100)
        check_quota(config, own, 100)
        assert other.exists()
        lock = hold(own)
        assert enforce_quota(config, 100) == 0
        assert own.exists()
        assert not other.exists()
        lock.close()

    def test_what_is_too_much_is_refused_and_nothing_is_deleted(self, cache: Path, make_set: MakeSet, use: Use) -> None:
        own, used, free = (make_set(name, images=300) for name in ("own", "used", "free"))
        use(used)
        sizes = {each.folder: each.bytes for each in list_sets(cache)[0]}
        most = sizes[own] + sizes[used] + 5 * MIB
        check_quota(CacheConfig(cache, most), own, 5 * MIB)
        with pytest.raises(InputError) as refusal:
            check_quota(CacheConfig(cache, most - 1), own, 5 * MIB)
        error = refusal.value
        assert (error.kind, error.exit_status) == ("cache_too_small", 2)
        figures = (most - 1, sizes[own], 5 * MIB, sizes[used])
        assert re.findall(r"[\d.]+ [KMGi]*B", error.message) == [readable_size(figure) for figure in figures]
        assert free.exists()

    def test_what_is_there_already_must_fit_too(self, cache: Path, make_set: MakeSet) -> None:
        with pytest.raises(InputError, match="is too small"):
            check_quota(CacheConfig(cache, 10), make_set("own"), 0)

    def test_what_goes_makes_room_on_the_disk(
        self, cache: Path, make_set: MakeSet, disk: Callable[[int], None]
    ) -> None:
        make_set("other")
        size = list_sets(cache)[0][0].bytes
        disk(0)
        check_quota(CacheConfig(cache, size), None, size)
        with pytest.raises(InputError, match="0 bytes free"):
            check_quota(CacheConfig(cache, 2 * size), None, size)

    def test_without_a_bound_nothing_goes(self, cache: Path, make_set: MakeSet) -> None:
        folder = make_set("other")
        assert enforce_quota(CacheConfig(cache)) == 0
        assert folder.exists()

    def test_what_cannot_go_is_counted(self, cache: Path, make_set: MakeSet, use: Use) -> None:
        use(make_set("used"))
        size = list_sets(cache)[0][0].bytes
        assert enforce_quota(CacheConfig(cache, size - 7)) == 7
