"""Linear probing: a linear head on the frozen backbone's final feature."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    FinalFeature,
    FrozenFeatures,
    Inputs,
    Method,
    MethodCard,
    MethodSettings,
    TrainingDefaults,
    new_head,
    nothing_to_merge,
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
    defaults = TrainingDefaults(lr=1e-3, lr_range=(1e-4, 1e-1))
    starts_at_backbone = True

    def features(self, backbone: BackboneInfo) -> FrozenFeatures:
        """The head eats the final feature."""
        return FinalFeature()

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Make the head; the backbone stays outside the trained module."""
        module = _Head(backbone.info.width, num_classes)
        return Adapted(module, frozenset({"head.weight", "head.bias"}), merge=nothing_to_merge)


class _Head(nn.Module):
    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.head = new_head(width, num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        return cast("Tensor", self.head(inputs.features["final"]))
