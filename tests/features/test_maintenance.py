"""Looking after the cache: the least recently used goes first, what is in use never, and what is damaged is found."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from petlbench.core.progress import Progress
from petlbench.features import maintenance
from petlbench.features.locks import hold
from petlbench.features.maintenance import list_sets, prune, verify
from petlbench.features.shard import lock_of, only_writer, shards_in

MakeSet = Callable[..., Path]
Use = Callable[[Path], subprocess.Popen[str]]


def flip(file: Path, place: int = -5) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(bytes(content))


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


class TestSurvey:
    def test_there_may_be_no_cache(self, cache: Path) -> None:
        assert list_sets(cache) == ([], [])
        cache.write_text("a file")
        assert list_sets(cache) == ([], [])

    def test_sets_come_in_the_order_of_their_use(self, cache: Path, make_set: MakeSet) -> None:
        late, early = make_set("late", images=4, used=2e6), make_set("early", used=1e6)
        sets, leftovers = list_sets(cache)
        assert [one.folder for one in sets] == [early, late]
        assert [one.last_used for one in sets] == [1e6, 2e6]
        assert [one.count_images() for one in sets] == [3, 4]
        assert [one.about()["backbone"] for one in sets] == ["early", "late"]
        assert not any(one.in_use for one in sets)
        assert sets[1].bytes == sum(path.stat().st_size for path in late.iterdir())
        assert leftovers == []

    def test_a_set_that_another_process_uses_is_in_use(self, cache: Path, make_set: MakeSet, use: Use) -> None:
        make_set("free")
        use(make_set("used"))
        assert {one.about()["backbone"]: one.in_use for one in list_sets(cache)[0]} == {"free": False, "used": True}

    def test_a_set_without_its_description_is_shown(self, cache: Path, make_set: MakeSet) -> None:
        (make_set("tiny") / "about.json").write_text("{")
        (result,), _ = list_sets(cache)
        assert result.about() == {}
        assert result.count_images() == 3


class TestPruning:
    def test_the_least_recently_used_go_until_the_rest_fits(self, cache: Path, make_set: MakeSet) -> None:
        folders = {name: make_set(name, used=used) for name, used in (("b", 2e6), ("c", 3e6), ("a", 1e6))}
        sizes = {one.folder: one.bytes for one in list_sets(cache)[0]}
        pruned = prune(cache, most=sizes[folders["b"]] + sizes[folders["c"]])
        assert [one.folder for one in pruned.sets] == [folders["a"]]
        assert pruned.bytes_freed == sizes[folders["a"]]
        assert pruned.bytes_left == sizes[folders["b"]] + sizes[folders["c"]]
        assert sorted(path for path in folders.values() if path.exists()) == sorted((folders["b"], folders["c"]))
        assert [one.folder for one in prune(cache, most=pruned.bytes_left - 1).sets] == [folders["b"]]

    def test_nothing_goes_without_a_bound(self, cache: Path, make_set: MakeSet) -> None:
        make_set("tiny")
        before = everything_in(cache)
        assert prune(cache).sets == ()
        assert everything_in(cache) == before

    def test_a_dry_run_deletes_nothing(self, cache: Path, make_set: MakeSet) -> None:
        folder = make_set("tiny")
        (folder / ".x.safetensors.7.tmp").write_bytes(b"half")
        before = everything_in(cache)
        pruned = prune(cache, 0, dry_run=True)
        assert [one.folder for one in pruned.sets] == [folder]
        assert [one.path.name for one in pruned.leftovers] == [".x.safetensors.7.tmp"]
        assert everything_in(cache) == before
        assert (prune(cache, 0).bytes_freed, list_sets(cache)) == (pruned.bytes_freed, ([], []))

    def test_what_a_process_uses_stays_and_the_next_goes_instead(
        self, cache: Path, make_set: MakeSet, use: Use
    ) -> None:
        oldest, old, new = (make_set(name, used=used) for name, used in (("a", 1e6), ("b", 2e6), ("c", 3e6)))
        process = use(oldest)
        os.utime(oldest / "used", (1e6, 1e6))
        each = list_sets(cache)[0][0].bytes
        assert [one.folder for one in prune(cache, 2 * each).sets] == [old]
        pruned = prune(cache, 0)
        assert [one.folder for one in pruned.sets] == [new]
        assert [one.folder for one in pruned.stayed] == [oldest]
        assert pruned.bytes_left == each
        process.kill()
        process.wait()
        assert [one.folder for one in prune(cache, 0).sets] == [oldest]

    def test_a_set_that_is_opened_at_the_last_moment_stays(
        self, cache: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = make_set("a", used=1e6), make_set("b", used=2e6)
        result, locks = list_sets(cache), [hold(first)]
        monkeypatch.setattr(maintenance, "list_sets", lambda cache_dir: result)
        pruned = prune(cache, result[0][0].bytes)
        assert [one.folder for one in pruned.sets] == [second]
        assert shards_in(first)
        locks.clear()

    def test_what_is_no_feature_set_is_left_alone(self, cache: Path, make_set: MakeSet) -> None:
        make_set("tiny")
        mine = cache / "features" / "my thesis"
        mine.mkdir()
        (mine / "chapter.safetensors").write_bytes(b"years of work")
        (mine / "draft.lock").touch()
        (cache / "features" / "notes.txt").write_text("notes")
        prune(cache, 0)
        assert sorted(path.name for path in everything_in(cache / "features")) == [
            "chapter.safetensors",
            "draft.lock",
            "my thesis",
            "notes.txt",
        ]

    def test_a_folder_that_cannot_be_renamed_stays(
        self, cache: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make_set("tiny")

        def refuse(path: Path, target: Path) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "rename", refuse)
        pruned = prune(cache, 0)
        assert pruned.sets == ()
        assert [one.folder for one in pruned.stayed] == [folder]


class TestLeftovers:
    def test_what_killed_processes_left_goes(self, cache: Path, make_set: MakeSet) -> None:
        folder = make_set("tiny")
        kept = everything_in(cache)
        (folder / ".0123.safetensors.77.tmp").write_bytes(b"half a shard")
        (folder / ".about.json.78.tmp").write_bytes(b"{")
        (folder / "0123.lock").touch()
        going = cache / "features" / f".going-{folder.name}-0123"
        going.mkdir()
        (going / "4567.safetensors").write_bytes(b"a shard")
        assert sum(one.bytes for one in list_sets(cache)[1]) == 20
        pruned = prune(cache)
        assert (len(pruned.leftovers), pruned.bytes_freed, pruned.sets) == (4, 20, ())
        assert everything_in(cache) == kept

    def test_a_folder_without_anything_in_it_goes(self, cache: Path) -> None:
        empty = cache / "features" / ("0" * 20)
        empty.mkdir(parents=True)
        (empty / "0123.lock").touch()
        assert [one.path for one in prune(cache).leftovers] == [empty]
        assert not empty.exists()

    def test_what_a_running_process_writes_stays(self, cache: Path, make_set: MakeSet, use: Use) -> None:
        folder = make_set("tiny")
        use(folder)
        written, left = (folder / f".{name}.safetensors.77.tmp" for name in ("written", "left"))
        for file in (written, left, folder / ".about.json.78.tmp", folder / "old.lock"):
            file.touch()
        with only_writer(folder / "written.safetensors"):
            assert [one.path for one in prune(cache).leftovers] == [left]
        assert written.exists()
        assert (folder / ".about.json.78.tmp").exists()
        assert (folder / "old.lock").exists()

    def test_what_a_process_has_begun_to_write_since_stays(
        self, cache: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make_set("tiny")
        temporary = folder / ".new.safetensors.77.tmp"
        temporary.touch()
        result, lock = list_sets(cache), hold(folder)
        monkeypatch.setattr(maintenance, "list_sets", lambda cache_dir: result)
        with only_writer(folder / "new.safetensors"):
            assert prune(cache).leftovers == ()
        assert temporary.exists()
        lock.close()


class Counting(Progress):
    def __init__(self) -> None:
        self.events: list[int] = []

    def phase(self, name: str, total: int) -> None:
        self.events.append(total)

    def advance(self, count: int = 1) -> None:
        self.events.append(count)


class TestVerifying:
    def test_every_good_shard_is_counted(self, cache: Path, make_set: MakeSet) -> None:
        make_set("a")
        make_set("b", images=1_100)  # three shards
        progress = Counting()
        result = verify(cache, 3, progress=progress)
        assert (result.good, result.damaged, result.unreadable) == (4, [], [])
        assert progress.events == [4, 1, 1, 1, 1]

    def test_there_may_be_nothing(self, cache: Path) -> None:
        assert verify(cache, 2).good == 0
        assert not cache.exists()

    @pytest.mark.parametrize("place", [2, 100, -5])
    def test_a_damaged_shard_is_named_and_taken_away(self, cache: Path, make_set: MakeSet, place: int) -> None:
        whole, (broken,) = shards_in(make_set("a")), shards_in(make_set("b"))
        flip(broken, place)
        result = verify(cache, 2)
        assert result.good == 1
        assert [(damage.file, damage.removed) for damage in result.damaged] == [(broken, True)]
        assert not broken.exists()
        assert all(file.exists() for file in whole)
        assert verify(cache, 2).damaged == []

    def test_a_damaged_shard_stays_on_request(self, cache: Path, make_set: MakeSet) -> None:
        (broken,) = shards_in(make_set("a"))
        broken.write_bytes(broken.read_bytes()[:-1])
        result = verify(cache, 2, keep=True)
        assert [(damage.file, damage.removed) for damage in result.damaged] == [(broken, False)]
        assert broken.exists()

    def test_the_next_run_makes_it_again(self, cache: Path, make_set: MakeSet) -> None:
        (broken,) = shards_in(make_set("a"))
        whole = broken.read_bytes()
        flip(broken)
        verify(cache, 2)
        make_set("a")
        assert broken.read_bytes() == whole

    def test_a_shard_that_somebody_makes_again_is_left_to_them(self, cache: Path, make_set: MakeSet) -> None:
        (broken,) = shards_in(make_set("a"))
        flip(broken)
        with only_writer(broken):
            assert verify(cache, 2).damaged[0].file == broken
            assert broken.exists()
        lock_of(broken).unlink()

    def test_what_cannot_be_read_is_not_damaged(
        self, cache: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (file,) = shards_in(make_set("a"))

        def refuse(shard: Path) -> None:
            raise PermissionError(13, "Permission denied", str(shard))

        monkeypatch.setattr(maintenance, "read_shard", refuse)
        result = verify(cache, 2)
        assert (result.good, result.damaged, result.unreadable) == (0, [], [(file, "Permission denied")])
        assert file.exists()

    def test_what_is_deleted_meanwhile_is_no_damage(
        self, cache: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_set("a")
        monkeypatch.setattr(maintenance, "read_shard", lambda file: file.unlink() or file.read_bytes())
        result = verify(cache, 2)
        assert (result.good, result.damaged, result.unreadable) == (0, [], [])
