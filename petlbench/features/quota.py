"""The quota of the feature cache: what fits on the disk, and below the bound that the user has set."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from petlbench.core.errors import InputError
from petlbench.core.files import check_writable, existing_part
from petlbench.core.units import readable_size
from petlbench.features.maintenance import FeatureSet, evict, list_sets, prune

__all__ = ["CacheConfig", "Purpose", "check_quota", "enforce_quota", "free_bytes"]


@dataclass(frozen=True)
class CacheConfig:
    """Where preloaded features are kept, and how many.

    Args:
        folder: Folder of the cache; need not be there.
        most: Largest size of the cache in bytes; None for no bound.
    """

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


def _check_bound(cache: CacheConfig, most: int, own: Path | None, needed: int, purpose: Purpose) -> list[FeatureSet]:
    """The feature sets that would have to go; an error where that does not help."""
    sets, _ = list_sets(cache.folder)
    gone = evict(sets, most - needed, lambda each: each.folder != own)
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
