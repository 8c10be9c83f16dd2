"""Looking after the feature cache: what is in it, whether it is whole, what fits, and making it smaller."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petlbench.core.errors import InputError
from petlbench.core.files import check_writable, existing_part
from petlbench.core.interrupt import check_interrupt
from petlbench.core.progress import Progress
from petlbench.core.units import readable_size
from petlbench.features.locks import exclusive, in_use, last_used
from petlbench.features.shard import (
    SUFFIX,
    DamagedShardError,
    being_written,
    images_in,
    only_writer,
    read_shard,
    shards_in,
)
from petlbench.features.store import ABOUT, features_folder, read_about

_KEY = re.compile(r"[0-9a-f]{20}")
# What a feature set is called while it is deleted: processes that look for it make a new one.
_GOING = ".going-"


@dataclass(frozen=True)
class FeatureSet:
    """One kind of features in the cache.

    Args:
        folder: Where they lie; named after the key.
        bytes: Size of its shards on the disk.
        last_used: When it was opened last, in seconds since 1970.
        in_use: Whether a running process uses it.
    """

    folder: Path
    bytes: int
    last_used: float
    in_use: bool

    @property
    def key(self) -> str:
        """The name of the set."""
        return self.folder.name

    def about(self) -> dict[str, Any]:
        """What determines the features."""
        return read_about(self.folder)

    def count_images(self) -> int:
        """How many images there are features of."""
        return len(images_in(self.folder))


@dataclass(frozen=True)
class Leftover:
    """What a process that was killed has left: a file, or a folder that was being deleted."""

    path: Path
    bytes: int


@dataclass(frozen=True)
class Damage:
    """A shard that is not what was written, what is wrong with it, and whether it was taken away."""

    file: Path
    reason: str
    removed: bool


@dataclass
class Verified:
    """The number of whole shards, the damaged ones, and those that could not be read, with the reason."""

    good: int = 0
    damaged: list[Damage] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Pruned:
    """What was deleted, or would be.

    Args:
        sets: Feature sets, the least recently used first.
        leftovers: What killed processes had left.
        stayed: Feature sets that would have had to go, but are in use or may not be deleted by this user.
        bytes_left: Size of what stays in bytes.
    """

    sets: tuple[FeatureSet, ...]
    leftovers: tuple[Leftover, ...]
    stayed: tuple[FeatureSet, ...]
    bytes_left: int

    @property
    def bytes_freed(self) -> int:
        """Bytes that there are more now, or would be."""
        return sum(each.bytes for each in self.sets) + sum(each.bytes for each in self.leftovers)


def list_sets(cache_dir: Path) -> tuple[list[FeatureSet], list[Leftover]]:
    """The feature sets of a cache, which need not be there, the least recently used first, and what was left in it."""
    sets = []
    leftovers = [Leftover(path, _bytes_below(path)) for path in features_folder(cache_dir).glob(f"{_GOING}*")]
    for folder in _folders(cache_dir):
        used, size = in_use(folder), _bytes_of([*shards_in(folder), folder / ABOUT])
        if size or used:
            sets.append(FeatureSet(folder, size, last_used(folder), used))
            leftovers += [Leftover(path, _bytes_of([path])) for path in _left_in(folder, used)]
        else:
            leftovers.append(Leftover(folder, _bytes_below(folder)))
    return sorted(sets, key=lambda each: (each.last_used, each.key)), leftovers


def _evict(sets: Sequence[FeatureSet], most: int, delete: Callable[[FeatureSet], bool]) -> list[FeatureSet]:
    """The least recently used sets that are gone: enough of them that the rest is small enough, or all not in use.

    Args:
        sets: The feature sets, the least recently used first.
        most: Largest size of what stays in bytes.
        delete: Deletes a set, or says that it could be; false for one that stays.
    """
    total, gone = sum(each.bytes for each in sets), []
    for each in sets:
        if total <= most:
            break
        if not each.in_use and delete(each):
            gone.append(each)
            total -= each.bytes
    return gone


def prune(cache_dir: Path, most: int | None = None, *, dry_run: bool = False) -> Pruned:
    """Delete what killed processes have left, and the least recently used feature sets that nobody uses.

    Args:
        cache_dir: Folder of the whole cache.
        most: Largest size of the feature sets that stay, in bytes; None to delete none of them.
        dry_run: Only say what would go.
    """
    sets, leftovers = list_sets(cache_dir)
    total = sum(each.bytes for each in sets)
    bound = total if most is None else most
    cleared = [leftover for leftover in leftovers if dry_run or _clear(leftover.path)]
    gone = _evict(sets, bound, lambda each: dry_run or _delete(each.folder))
    rest = total - sum(each.bytes for each in gone)
    stayed = [each for each in sets if each not in gone] if rest > bound else []
    return Pruned(tuple(gone), tuple(cleared), tuple(stayed), rest)


def verify(cache_dir: Path, threads: int, *, keep: bool = False, progress: Progress | None = None) -> Verified:
    """Check every byte of every shard.

    Args:
        cache_dir: Folder of the whole cache; need not be there.
        threads: How many read at a time.
        keep: Leave damaged shards where they are; otherwise they are taken away, and the next run makes them again.
        progress: Told of every shard.
    """
    files = [file for folder in _folders(cache_dir) for file in shards_in(folder)]
    progress, verified = progress or Progress(), Verified()
    progress.phase("checking features", len(files))
    with ThreadPoolExecutor(threads) as pool:
        futures = {pool.submit(_examine, file, keep): file for file in files}
        try:
            for future in as_completed(futures):
                answer = future.result()
                if answer is None:
                    verified.good += 1
                elif isinstance(answer, Damage):
                    verified.damaged.append(answer)
                elif not isinstance(answer, FileNotFoundError):  # deleted since
                    verified.unreadable.append((futures[future], answer.strerror or str(answer)))
                progress.advance()
                check_interrupt()
        except BaseException:
            # Without this, Ctrl-C would wait until every remaining shard is read.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    verified.damaged.sort(key=lambda damage: damage.file)
    verified.unreadable.sort()
    return verified


@dataclass(frozen=True)
class CacheConfig:
    """Where preloaded features are kept (the folder need not be there), and how many bytes at most; None for all."""

    folder: Path
    most: int | None = None


def free_bytes(folder: Path) -> int:
    """Free bytes of the file system that a folder is on, or would be."""
    return shutil.disk_usage(existing_part(folder)).free


@dataclass(frozen=True)
class Purpose:
    """What is to be kept in the cache, in the errors' words: such as ``preloading``, and what does without it."""

    doing: str
    instead: str


_PRELOADING = Purpose("preloading", "use --no-preload, or a smaller --cache-precision")


def check_quota(cache: CacheConfig, own: Path | None, needed: int, purpose: Purpose = _PRELOADING) -> None:
    """Check that features fit on the disk and into the cache; nothing is written or deleted.

    Args:
        cache: The cache.
        own: Folder of the feature set that they belong to; None where it is not known.
        needed: Size of the features that are still missing in bytes, at most.
        purpose: What they are.

    Raises:
        InputError: When they do not fit, also after feature sets that nobody uses have gone.
    """
    gone = _check_bound(cache, cache.most, own, needed, purpose) if cache.most is not None else []
    if not needed:
        return
    check_writable(cache.folder, what="folder of the feature cache", option=f"--cache-dir, or {purpose.instead}")
    free = free_bytes(cache.folder)
    if needed > free + sum(each.bytes for each in gone):
        raise InputError(
            f"{purpose.doing} would write {readable_size(needed)} to {cache.folder}, and the disk has "
            f"{readable_size(free)} free",
            hint="name a folder on another disk with --cache-dir, free disk space with "
            f"petlbench cache prune --cache-size SIZE, or {purpose.instead}",
            kind="no_room",
        )


def enforce_quota(cache: CacheConfig, needed: int = 0) -> int:
    """By how many bytes the cache is too large after the least recently used feature sets of others were deleted.

    It is where running processes use what is in it. ``needed`` bytes are what this process is about to add.
    """
    if cache.most is None:
        return 0
    return max(0, prune(cache.folder, max(0, cache.most - needed)).bytes_left + needed - cache.most)


def _examine(file: Path, keep: bool) -> Damage | OSError | None:
    """What is wrong with a shard; None for a good one."""
    try:
        try:
            read_shard(file)
            return None
        except DamagedShardError as error:
            damage = Damage(file, str(error), removed=not keep)
        if keep:
            return damage
        with only_writer(file) as alone:
            if alone:  # else another process has come to know of it, and makes it again
                with suppress(DamagedShardError):
                    read_shard(file)
                    return None
                file.unlink()
        return damage
    except OSError as error:
        return error


def _delete(folder: Path) -> bool:
    """Delete a feature set, unless a process uses it now; one that wants it from now on makes a new one."""
    going = folder.with_name(f"{_GOING}{folder.name}-{uuid.uuid4().hex}")
    with exclusive(folder) as free:
        if not free:
            return False
        try:
            folder.rename(going)
        except OSError:  # another user's
            return False
    shutil.rmtree(going, ignore_errors=True)
    return True


def _clear(path: Path) -> bool:
    """Delete what a killed process has left, unless another one has come to use it; whether it is gone."""
    if path.name.startswith(_GOING):
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    if path.is_dir():
        return _delete(path)
    with suppress(OSError), ExitStack() as stack:
        alone = stack.enter_context(exclusive(path.parent))
        if not alone and (shard := _shard_behind(path)) is not None and path.exists():
            alone = stack.enter_context(only_writer(shard))
        if alone:
            path.unlink()
            return True
    return False


def _folders(cache_dir: Path) -> list[Path]:
    try:
        paths = sorted(features_folder(cache_dir).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    # Nothing else is touched, whatever the folder is that somebody takes for a cache.
    return [path for path in paths if _KEY.fullmatch(path.name) and path.is_dir()]


def _left_in(folder: Path, used: bool) -> Iterator[Path]:
    for path in sorted(folder.glob(".*.tmp")):
        shard = _shard_behind(path)
        if not used or (shard is not None and not being_written(shard)):
            yield path
    if not used:  # while the set is in use, a lock that nobody has now may be taken by the next moment
        yield from sorted(folder.glob("*.lock"))


def _shard_behind(temporary: Path) -> Path | None:
    """The shard that was to be made of a temporary file ``.NAME.PROCESS.tmp``; None for another file's."""
    name = temporary.name.removeprefix(".").rpartition(".")[0].rpartition(".")[0]
    return temporary.with_name(name) if name.endswith(SUFFIX) else None


def _bytes_below(folder: Path) -> int:
    return _bytes_of([Path(where) / name for where, _, names in os.walk(folder) for name in names])


def _bytes_of(files: Iterable[Path]) -> int:
    """Size of some files in bytes; what is gone takes none."""
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.stat().st_size
    return total


def _check_bound(cache: CacheConfig, most: int, own: Path | None, needed: int, purpose: Purpose) -> list[FeatureSet]:
    """The feature sets that would have to go; an error where that does not help."""
    sets, _ = list_sets(cache.folder)
    gone = _evict(sets, most - needed, lambda each: each.folder != own)
    stays = sum(each.bytes for each in sets) - sum(each.bytes for each in gone)
    if stays + needed > most:
        mine = sum(each.bytes for each in sets if each.folder == own)
        raise InputError(
            f"--cache-size {readable_size(most)} is too small: this run's feature set in {cache.folder} holds "
            f"{readable_size(mine)}, {purpose.doing} would add {readable_size(needed)}, and other running "
            f"processes use {readable_size(stays - mine)}",
            hint=f"give a larger --cache-size, name another folder with --cache-dir, or {purpose.instead}",
            kind="cache_too_small",
        )
    return gone
