"""Room for preloaded features: on the disk, and below the bound that the user has set for the cache."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from petlbench.core.errors import InputError
from petlbench.core.files import check_writable, existing_part
from petlbench.core.units import readable_size
from petlbench.features.maintenance import FeatureSet, evictable, prune, survey

__all__ = ["PRELOADING", "CacheConfig", "Purpose", "check_room", "free_bytes", "keep_below"]


@dataclass(frozen=True)
class CacheConfig:
    """Where preloaded features are kept.

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
    """What is to be kept in the cache, in the words of the errors.

    Args:
        doing: What the run would do, such as ``preloading``.
        instead: What does without it, as the end of a hint.
    """

    doing: str
    instead: str


PRELOADING = Purpose("preloading", "use --no-preload, or a smaller --cache-precision")


def check_room(place: CacheConfig, own: Path | None, needed: int, purpose: Purpose = PRELOADING) -> None:
    """Check that features fit on the disk and into the cache; nothing is written or deleted.

    Args:
        place: The cache.
        own: Folder of the feature set that they are part of; None where it is not known.
        needed: Size of the features that are still missing in bytes, at most.
        purpose: What they are.

    Raises:
        InputError: When they do not fit, also after feature sets that nobody uses have gone.
    """
    gone = _check_bound(place, own, needed, purpose) if place.most is not None else []
    if not needed:
        return
    check_writable(place.folder, what="folder of the feature cache", option=f"--cache-dir, or {purpose.instead}")
    free = free_bytes(place.folder)
    if needed > free + sum(one.bytes for one in gone):
        raise InputError(
            f"{purpose.doing} would write {readable_size(needed)} to {place.folder}, and the disk has "
            f"{readable_size(free)} free",
            hint="name a folder on another disk with --cache-dir, make room with petlbench cache prune --cache-size "
            f"SIZE, or {purpose.instead}",
            kind="no_room",
        )


def keep_below(place: CacheConfig, needed: int = 0) -> int:
    """Delete the least recently used feature sets of others until the cache is as small as was asked for.

    Args:
        place: The cache.
        needed: Bytes that this process is about to add.

    Returns:
        By how many bytes the cache is larger still, because running processes use what is in it.
    """
    if place.most is None:
        return 0
    return max(0, prune(place.folder, max(0, place.most - needed)).bytes_left + needed - place.most)


def _check_bound(place: CacheConfig, own: Path | None, needed: int, purpose: Purpose) -> list[FeatureSet]:
    """Choose the feature sets that would have to go, or say that it does not help."""
    sets, _ = survey(place.folder)
    most = place.most or 0
    gone = evictable(sets, most - needed, keep=own)
    stays = sum(one.bytes for one in sets) - sum(one.bytes for one in gone)
    if stays + needed > most:
        mine = sum(one.bytes for one in sets if one.folder == own)
        raise InputError(
            f"--cache-size {readable_size(most)} is too small: this run's feature set in {place.folder} holds "
            f"{readable_size(mine)}, {purpose.doing} would add {readable_size(needed)}, and other running "
            f"processes use {readable_size(stays - mine)}",
            hint=f"give a larger --cache-size, name another folder with --cache-dir, or {purpose.instead}",
            kind="cache_too_small",
        )
    return gone
