"""Where features are kept: one folder for each kind of them, named after all that determines them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petlbench.core.files import write_atomically
from petlbench.features.locks import hold
from petlbench.features.precision import CachePrecision, stored_tensors
from petlbench.features.shard import images_of, shards_in
from petlbench.features.store import FeatureStore
from petlbench.models.method import FeatureSpec, TensorSpec

__all__ = ["ABOUT", "StorePlan", "features_folder", "open_store", "plan_store", "plan_tensors", "read_about"]

ABOUT = "about.json"
"""What a folder's features are determined by, for people and for ``petlbench cache``."""

# Raised when the same key comes to mean other features.
_VERSION = 2

_KEY_LENGTH = 20
# What is not known before weights are read.
_UNKNOWN_ON_META = "weights"


@dataclass(frozen=True)
class StorePlan:
    """The store of one kind of features, not opened; nothing need be there.

    Args:
        about: What determines the features.
        store: Says what is missing, and nothing else, until it is opened.
    """

    about: Mapping[str, Any]
    store: FeatureStore

    @property
    def folder(self) -> Path:
        """The folder of the store."""
        return self.store.folder

    def open(self) -> FeatureStore:
        """Open the store, keep others from deleting it, and say in it what it holds.

        Raises:
            OSError: When the folder cannot be made.
        """
        lease = hold(self.folder)
        if not (self.folder / ABOUT).exists():
            with write_atomically(self.folder / ABOUT) as temporary:
                temporary.write_text(_text(self.about), encoding="utf-8")
        return FeatureStore(self.folder, self.store.tensors, lease=lease)

    def alike(self) -> tuple[Path | None, int]:
        """Find the store that is most likely meant where the weights were not read.

        Returns:
            The folder of the fullest store that differs in its weights at most, and how many images it has.
        """
        known = {name: value for name, value in self.about.items() if name != _UNKNOWN_ON_META}
        found: tuple[Path | None, int] = (None, 0)
        for file in self.folder.parent.glob(f"*/{ABOUT}"):
            about = read_about(file.parent)
            if {name: value for name, value in about.items() if name != _UNKNOWN_ON_META} == known:
                images = len({name for shard in shards_in(file.parent) for name in images_of(shard)})
                found = max(found, (file.parent, images), key=lambda store: store[1])
        return found


def features_folder(cache_dir: Path) -> Path:
    """The folder of all feature sets in the folder of a cache."""
    return cache_dir / "features"


def plan_store(
    cache_dir: Path, spec: FeatureSpec, precision: CachePrecision, determined_by: Mapping[str, Any]
) -> StorePlan:
    """Say where one kind of features is kept, without touching the disk.

    Args:
        cache_dir: Folder of the whole cache.
        spec: The features.
        precision: The form in which they are stored.
        determined_by: What decides the numbers beside the images' content: backbone, weights, view, precision.
    """
    determined_by = {**determined_by, "features": dict(spec.key), "cache_precision": precision}
    return plan_tensors(cache_dir, stored_tensors(spec, precision), determined_by)


def plan_tensors(cache_dir: Path, tensors: Mapping[str, TensorSpec], determined_by: Mapping[str, Any]) -> StorePlan:
    """Say where tensors of any kind are kept, without touching the disk.

    Args:
        cache_dir: Folder of the whole cache.
        tensors: One image's tensors as they are stored, by name.
        determined_by: What decides the numbers beside the images' content.
    """
    text = _text({"version": _VERSION, **determined_by})
    key = hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]
    return StorePlan(json.loads(text), FeatureStore(features_folder(cache_dir) / key, tensors))


def open_store(
    cache_dir: Path, spec: FeatureSpec, precision: CachePrecision, determined_by: Mapping[str, Any]
) -> FeatureStore:
    """Open the store of one kind of features, and say in it what they are; see `plan_store`."""
    return plan_store(cache_dir, spec, precision, determined_by).open()


def read_about(folder: Path) -> dict[str, Any]:
    """What a feature set says of itself; nothing where its file is missing or damaged."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, indent=1)
