"""What a run would take, without images, weights or training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from petlbench.core.config import RunConfig
from petlbench.features.maintenance import CacheConfig, check_quota, free_bytes
from petlbench.memory.predict import predict_training
from petlbench.models.build import Assembled, assemble, count_parameters
from petlbench.results.result import Memory, Parameters
from petlbench.run.preload import plan_features
from petlbench.run.resolve import ResolvedRun

__all__ = ["DryRun", "PreloadedBytes", "dry_run"]


@dataclass(frozen=True)
class PreloadedBytes:
    """What preloaded features would take, in bytes; None where nothing is preloaded.

    Args:
        bytes_per_image: Size of one image's features.
        bytes: Size of all of them; None where the number of images is not known.
        free: Free bytes of the disk that the feature cache is on.
    """

    bytes_per_image: int | None = None
    bytes: int | None = None
    free: int | None = None


@dataclass(frozen=True)
class DryRun:
    """What a run would take: exact counts, the predicted peak of its training step, and its preloaded features."""

    config: RunConfig
    parameters: Parameters
    memory: Memory
    preloaded: PreloadedBytes

    def document(self) -> dict[str, Any]:
        """The dry run as plain values."""
        parts = {name: getattr(self, name).model_dump(mode="json") for name in ("config", "parameters", "memory")}
        return {"run_id": self.config.run_id, **parts, "feature_cache": asdict(self.preloaded)}


def dry_run(run: ResolvedRun, cache: CacheConfig) -> DryRun:
    """Return what a run would take, built on device ``meta``; its images need not be there.

    Raises:
        InputError: When preloaded features would find no room, as far as that can be said without the images.
    """
    assembled = assemble(run.config, run.method, len(run.card.classes), torch.device("meta"))
    preloaded = _preloaded(run, assembled, cache)
    return DryRun(run.config, count_parameters(assembled), predict_training(run.config, assembled), preloaded)


def _preloaded(run: ResolvedRun, assembled: Assembled, cache: CacheConfig) -> PreloadedBytes:
    store = plan_features(run.config, assembled, run.views, cache.folder)
    if store is None:
        return PreloadedBytes()
    each, images = store.bytes_an_image, run.dataset.images if run.dataset is not None else None
    if images is not None:
        # Which images are in the cache, nobody knows before they are read: as many as can be are taken to be.
        folder, cached = store.alike()
        check_quota(cache, folder, store.bytes_of(max(0, images - cached), spread_over=images))
    return PreloadedBytes(each, each * images if images is not None else None, free_bytes(cache.folder))
