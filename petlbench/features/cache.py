"""Where features are kept: one folder for each kind of them, named after all that determines them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petlbench.features.precision import CachePrecision, stored_tensors
from petlbench.features.store import FeatureStore
from petlbench.files import write_atomically
from petlbench.method import FeatureSpec

__all__ = ["ABOUT", "open_store"]

ABOUT = "about.json"
"""What a folder's features are determined by, for people and for ``petlbench cache``."""

# Raised when the same key comes to mean other features.
_VERSION = 1


def open_store(
    cache_dir: Path, spec: FeatureSpec, precision: CachePrecision, determined_by: Mapping[str, Any]
) -> FeatureStore:
    """Open the store of one kind of features, and say in it what they are.

    Args:
        cache_dir: Folder of the whole cache.
        spec: The features.
        precision: The form in which they are stored.
        determined_by: What decides the numbers beside the images' content: backbone, weights, view, precision.
    """
    about = {"version": _VERSION, **determined_by, "features": dict(spec.key), "cache_precision": precision}
    text = json.dumps(about, sort_keys=True, indent=1)
    folder = cache_dir / "features" / hashlib.sha256(text.encode()).hexdigest()[:20]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ABOUT).exists():
        with write_atomically(folder / ABOUT) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return FeatureStore(folder, stored_tensors(spec, precision))
