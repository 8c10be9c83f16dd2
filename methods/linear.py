"""Linear probing: a linear head on the frozen backbone's final feature."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from petlbench.backbone import Backbone, BackboneInfo
from petlbench.catalog import MethodCard
from petlbench.method import (
    Adapted,
    FeatureSpec,
    FrozenFeatures,
    Inputs,
    Method,
    MethodSettings,
    TensorSpec,
    TrainingDefaults,
    new_head,
)

__all__ = ["LinearProbing"]


class LinearProbing(Method[MethodSettings]):
    """Learns a linear head and nothing else, so the backbone need see each image only once."""

    card = MethodCard(
        name="linear",
        title="Linear probing",
        family="reference",
        year=2016,
        paper="https://arxiv.org/abs/1610.01644",
        summary="Learns a linear head on the frozen final feature.",
    )
    defaults = TrainingDefaults(lr=1e-3)

    def features(self, backbone: BackboneInfo) -> FrozenFeatures:
        """The head eats the final feature."""
        return FinalFeature()

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Make the head; the backbone stays outside the trained module."""
        return Adapted(_Head(backbone.info.width, num_classes), frozenset({"head.weight", "head.bias"}))


class FinalFeature:
    """The feature that the backbone's own classifier would read, (B, D)."""

    def spec(self, backbone: BackboneInfo) -> FeatureSpec:
        """One vector of the backbone's width an image."""
        return FeatureSpec("fine", {"feature": "final"}, {"final": TensorSpec((backbone.width,))})

    def extract(self, backbone: Backbone, image: Tensor) -> dict[str, Tensor]:
        """Run the whole backbone."""
        return {"final": backbone.pooled(image).float()}


class _Head(nn.Module):
    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.head = new_head(width, num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        return cast("Tensor", self.head(inputs.features["final"]))
