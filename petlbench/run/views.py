"""How a run shows its images: augmentation, and the views that its method asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from petlbench.core.config import RunConfig
from petlbench.data.card import DatasetCard
from petlbench.data.views import Augmentation, Normalization, View
from petlbench.models.info import BackboneInfo
from petlbench.models.method import Method

__all__ = ["augmentation_of", "build_views"]


def augmentation_of(config: RunConfig, card: DatasetCard) -> Augmentation | None:
    """The augmentation of a run; the standard one leaves mirror images out where they could change the label."""
    if config.training.augment == "none":
        return None
    return Augmentation() if card.mirror else Augmentation(mirror=0.0)


def build_views(
    config: RunConfig,
    method: Method[Any],
    backbone: BackboneInfo,
    normalization: Normalization,
    augmentation: Augmentation | None = None,
) -> Mapping[str, View]:
    """The views of a run by name.

    A view whose features are preloaded is never augmented: the backbone sees each image once.
    """
    frozen = method.features(backbone)
    fixed = frozen.spec(backbone).view if frozen is not None and config.preload else None
    views = {}
    for name, spec in method.views(backbone, config.image_size).items():
        augmented = spec.augment and name != fixed
        views[name] = View(spec.size, backbone.interpolation, normalization, augmentation if augmented else None)
    return views
