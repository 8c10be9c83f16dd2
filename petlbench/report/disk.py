"""What runs take of the disk."""

from __future__ import annotations

from collections.abc import Sequence

from petlbench.results.stored import Stored

__all__ = ["cache_bytes", "folder_bytes"]


def cache_bytes(runs: Sequence[Stored]) -> int | None:
    """Bytes of the features of a row's largest dataset, as its runs recorded them; None where they did not.

    Args:
        runs: Runs with preloading.
    """
    features = [run.document.get("data", {}).get("features") or {} for run in runs]
    return max((int(size) for each in features if (size := each.get("bytes")) is not None), default=None)


def folder_bytes(stored: Stored) -> int | None:
    """Bytes of a run's folder; None where there is none."""
    if stored.folder is None:
        return None
    return sum(file.stat().st_size for file in stored.folder.iterdir() if file.is_file())
