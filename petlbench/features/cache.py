"""Where features are kept: one store for each kind of them, named after all that determines them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petlbench.features.precision import CachePrecision, stored_tensors
from petlbench.features.store import FeatureStore, features_folder
from petlbench.models.method import FeatureSpec, TensorSpec

__all__ = ["plan_store", "plan_tensors"]

# Raised when the same key comes to mean other features.
_VERSION = 2

_KEY_LENGTH = 20


def plan_store(
    cache_dir: Path, spec: FeatureSpec, precision: CachePrecision, determined_by: Mapping[str, Any]
) -> FeatureStore:
    """The store of one kind of features, not opened.

    Args:
        cache_dir: Folder of the whole cache.
        spec: The features.
        precision: The form in which they are stored.
        determined_by: What decides the numbers beside the images' content: backbone, weights, view, precision.
    """
    determined_by = {**determined_by, "features": dict(spec.key), "cache_precision": precision}
    return plan_tensors(cache_dir, stored_tensors(spec, precision), determined_by)


def plan_tensors(cache_dir: Path, tensors: Mapping[str, TensorSpec], determined_by: Mapping[str, Any]) -> FeatureStore:
    """The store of tensors of any kind, not opened.

    Args:
        cache_dir: Folder of the whole cache.
        tensors: One image's tensors as they are stored, by name.
        determined_by: What decides the numbers beside the images' content.
    """
    text = json.dumps({"version": _VERSION, **determined_by}, sort_keys=True, indent=1)
    key = hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]
    return FeatureStore(features_folder(cache_dir) / key, tensors, about=json.loads(text))
