"""How a run shows its images: normalisation, augmentation, and the views of each split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.data.card import DatasetCard
from petlbench.data.record import Split
from petlbench.data.views import Augmentation, Normalization, View, by_split
from petlbench.models.info import BackboneInfo
from petlbench.models.method import Method, load_method
from petlbench.models.registry import probe_backbone

__all__ = ["augmentation_of", "build_views", "normalization", "views_by_split"]


def normalization(config: RunConfig, card: DatasetCard) -> Normalization:
    """The mean and standard deviation that a run uses: the backbone's own, or on request the card's."""
    if config.normalize == "card" and card.mean is not None and card.std is not None:
        return Normalization(card.mean, card.std, "card")
    info = probe_backbone(config.backbone, config.image_size)
    return Normalization(info.mean, info.std, "backbone")


def augmentation_of(config: RunConfig, card: DatasetCard) -> Augmentation | None:
    """The augmentation of a run; the standard one leaves mirror images out where they could change the label."""
    if config.training.augment == "none":
        return None
    return Augmentation() if card.mirror else Augmentation(mirror=0.0)


def build_views(
    config: RunConfig, method: Method[Any], info: BackboneInfo, chosen: Normalization, augmentation: Augmentation | None
) -> Mapping[str, View]:
    """Make the training views of a run; `View.without_augmentation` makes those for evaluation.

    A view whose features are preloaded is never augmented: the backbone sees each image once.
    """
    frozen = method.features(info)
    fixed = frozen.spec(info).view if frozen is not None and config.preload else None
    views = {}
    for name, spec in method.views(info, config.image_size).items():
        augmented = spec.augment and name != fixed
        views[name] = View(spec.size, info.interpolation, chosen, augmentation if augmented else None)
    return views


def views_by_split(config: RunConfig, catalog: Catalog, card: DatasetCard) -> dict[Split, dict[str, View]]:
    """The views that a run reads of each split in every epoch: without the one whose features are preloaded.

    Args:
        config: The run.
        catalog: The catalogues.
        card: The dataset's card.
    """
    method = load_method(catalog.find("method", config.method)).from_settings(config.method_settings)
    info = probe_backbone(config.backbone, config.image_size)
    views = build_views(config, method, info, normalization(config, card), augmentation_of(config, card))
    frozen = method.features(info)
    spared = frozen.spec(info).view if frozen is not None and config.cache_precision is not None else None
    return by_split({name: view for name, view in views.items() if name != spared})
