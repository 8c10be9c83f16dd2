"""What runs take of the disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from petlbench.results.stored import Stored

__all__ = ["cache_bytes", "folder_bytes"]


def cache_bytes(runs: Sequence[Stored]) -> int | None:
    """Bytes of the features of a row's largest dataset: as its runs recorded them, else computed.

    Args:
        runs: Runs with preloading.
    """
    sizes = [size for one in runs if (size := _recorded(one)) is not None]
    return (
        max(sizes) if sizes else max((size for one in runs[:1] if (size := _computed(one)) is not None), default=None)
    )


def folder_bytes(stored: Stored) -> int | None:
    """Bytes of a run's folder; None where there is none."""
    if stored.folder is None:
        return None
    return sum(file.stat().st_size for file in stored.folder.iterdir() if file.is_file())


def _recorded(stored: Stored) -> int | None:
    size = (stored.document.get("data", {}).get("features") or {}).get("bytes")
    return None if size is None else int(size)


def _computed(stored: Stored) -> int | None:
    counts = stored.document.get("data", {}).get("images") or {}
    classes = len(stored.document.get("data", {}).get("classes") or ())
    images = sum(counts.values())
    if not (images and classes):
        return None
    config = {**stored.config, "seed": 0, "dataset": "", "test_on": "", "split": "random", "dataset_settings": {}}
    each = _bytes_an_image(json.dumps(config, sort_keys=True), classes)
    return None if each is None else each * images


@lru_cache(maxsize=256)
def _bytes_an_image(config: str, classes: int) -> int | None:
    """Build the run on device ``meta`` and ask how its features would be stored."""
    from pathlib import Path

    import torch

    from petlbench.core.catalog import Catalog
    from petlbench.core.config import RunConfig
    from petlbench.core.errors import PetlbenchError
    from petlbench.data.views import Normalization
    from petlbench.models.build import assemble
    from petlbench.models.method import configured_method
    from petlbench.run.preload import plan_features
    from petlbench.run.views import build_views

    given: dict[str, Any] = json.loads(config)
    try:
        run = RunConfig.model_validate(given)
        assembled = assemble(run, configured_method(run, Catalog()), classes, torch.device("meta"))
    except (PetlbenchError, ValueError):  # a method of the user's own, or settings of another version
        return None
    grey = Normalization((0.5,) * 3, (0.5,) * 3, "backbone")
    views = build_views(run, assembled.method, assembled.backbone.info, grey, None)
    plan = plan_features(run, assembled, views, Path())
    return None if plan is None else plan.bytes_an_image
