"""What datasets are called in tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

__all__ = ["dataset_names"]


def dataset_names(datasets: Iterable[str]) -> dict[str, str]:
    """Names of the datasets of one table: the catalogue's, or that of the folder or file without its ending.

    Datasets that would be called alike have the names of their folders in front, so many of them as tell them apart:
    ``a/images`` and ``b/images``. A path that is the end of another one means the same dataset.
    """
    alike: dict[str, dict[str, tuple[str, ...]]] = {}
    for dataset in datasets:
        alike.setdefault(_short_name(dataset), {})[dataset] = _folders(dataset)
    return {dataset: name for short, members in alike.items() for dataset, name in _apart(short, members).items()}


def _apart(short: str, members: dict[str, tuple[str, ...]]) -> dict[str, str]:
    whole = {
        folders: max((other for other in members.values() if _ends_with(other, folders)), key=len)
        for folders in members.values()
    }
    distinct = set(whole.values())
    names = {}
    for dataset, folders in members.items():
        path, depth = whole[folders], 0
        while any(other != path and _ends_with(other, path[len(path) - depth :]) for other in distinct):
            depth += 1
        names[dataset] = "/".join([*path[len(path) - depth :], short])
    return names


def _ends_with(folders: tuple[str, ...], end: tuple[str, ...]) -> bool:
    return folders[len(folders) - len(end) :] == end if len(end) <= len(folders) else False


def _folders(dataset: str) -> tuple[str, ...]:
    # An absolute path begins with an empty part, so that it is the end of no other.
    return tuple(part.strip("/") for part in PurePath(dataset).parts[:-1] if part not in (".", "..", "~"))


def _short_name(dataset: str) -> str:
    return dataset.rstrip("/").rpartition("/")[2].partition(".")[0] or dataset
