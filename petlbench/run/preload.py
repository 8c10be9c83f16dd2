"""Preloading: where a run's frozen features come from, whether they fit, and computing those that are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from petlbench.core.config import RunConfig
from petlbench.core.units import readable_size
from petlbench.data.loader import Batch, ImageLoader
from petlbench.data.views import View
from petlbench.features.frozen import in_form
from petlbench.features.maintenance import check_quota, enforce_quota
from petlbench.features.source import CachedFeatures, FeatureSource, LiveFeatures, NoFeatures, extraction_batch
from petlbench.features.store import FeatureStore, plan_store
from petlbench.memory.measure import MemoryMeter
from petlbench.models.build import Assembled
from petlbench.models.info import BackboneInfo
from petlbench.models.method import FrozenFeatures
from petlbench.run.data import RunData
from petlbench.run.options import RunContext
from petlbench.run.resolve import ResolvedRun


def plan_features(
    config: RunConfig,
    frozen: FrozenFeatures | None,
    backbone: BackboneInfo,
    views: Mapping[str, View],
    cache_dir: Path,
    *,
    weights: str = "",
) -> FeatureStore | None:
    """Say where a run's features are kept; None where nothing is preloaded.

    Args:
        config: The run.
        frozen: What its method takes from the frozen backbone, or None.
        backbone: Its backbone.
        views: Its views by name.
        cache_dir: Folder of the whole cache.
        weights: Digest of the backbone's weights; without it the plan is good for estimates alone.
    """
    if frozen is None or config.cache_precision is None:
        return None
    spec = in_form(frozen, config.cache_form).spec(backbone)
    view = views[spec.view].without_augmentation()
    determined_by = {
        "backbone": config.backbone,
        "weights": weights,
        "view": view.describe(),
        "image_size": view.size,
        "mean": view.normalization.mean,
        "std": view.normalization.std,
        "precision": config.features_precision,
        "attention_kernel": config.attention_kernel,
        "device": config.device,
    }
    return plan_store(cache_dir, spec, config.cache_precision, determined_by)


def open_source(
    run: ResolvedRun, assembled: Assembled, data: RunData, *, context: RunContext, device: torch.device
) -> FeatureSource:
    """Choose where a run's features come from; where they are preloaded, see that they fit and open their store.

    Raises:
        InputError: When they do not fit; nothing is written then.
    """
    config = run.config
    if assembled.frozen is None:
        return NoFeatures()
    cache, info = context.options.cache, assembled.backbone.info
    store = plan_features(config, assembled.frozen, info, run.views, cache.folder, weights=assembled.weights_digest)
    if store is None or config.cache_precision is None:
        return LiveFeatures(assembled.backbone, assembled.frozen, config.features_precision)
    images = data.images.digests(data.dataset.records)
    check_quota(cache, store.folder, store.missing_bytes(images))
    form = in_form(assembled.frozen, config.cache_form)
    kept = LiveFeatures(assembled.backbone, form, config.features_precision)
    return CachedFeatures(kept, context.parts.open_store(store, cache), images, config.cache_precision, device)


def deployed(source: FeatureSource, assembled: Assembled, precision: str) -> FeatureSource:
    """Where the features of a deployed model come from: what a run has preloaded is computed live there."""
    if assembled.frozen is None:
        return source
    return LiveFeatures(assembled.backbone, assembled.frozen, precision)


def preload(
    source: CachedFeatures,
    data: RunData,
    views: Mapping[str, View],
    *,
    meter: MemoryMeter,
    context: RunContext,
) -> None:
    """Compute the features that are missing; the backbone is on the device only while it works."""
    cache, workers, progress = context.options.cache, context.options.workers, context.progress
    if cache.most is not None:
        enforce_quota(cache, source.store.missing_bytes(source.images))
    progress.phase("preloading", len(source.images))
    read = {name: view.without_augmentation() for name, view in views.items() if name == source.spared_view}
    images = context.parts.images_to_preload(data.images)
    batch_size = extraction_batch(source.live.backbone.info, source.device.type)

    def load(positions: Sequence[int]) -> Iterator[Batch]:
        pinned = source.device.type == "cuda"
        return ImageLoader(images, positions, read, batch_size, workers, pinned).in_order()

    module = source.live.backbone.module.to(source.device)
    with meter.phase("preload", (module,)):
        source.fill(load, progress.advance)
    module.to("cpu")
    if (over := enforce_quota(cache)) > 0:
        progress.say(
            f"the feature cache is {readable_size(over)} larger than --cache-size: running processes use what is in it"
        )
