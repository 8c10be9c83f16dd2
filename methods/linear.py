"""Heads on the frozen backbone's final feature: linear probing, and Mlp-k with several layers."""

from __future__ import annotations

from typing import TypeVar, cast

from pydantic import Field
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

__all__ = ["LinearProbing", "MLPHead", "MLPHeadSettings"]

S = TypeVar("S", bound=MethodSettings)


class _HeadAlone(Method[S]):
    """Learns a head and nothing else, so the backbone need see each image only once."""

    defaults = TrainingDefaults(lr=1e-3, lr_range=(1e-4, 1e-1))

    def features(self, backbone: BackboneInfo) -> FrozenFeatures:
        """The head takes the final feature."""
        return FinalFeature()


class LinearProbing(_HeadAlone[MethodSettings]):
    """Learns a linear head on the final feature."""

    card = MethodCard(
        name="linear",
        title="Linear probing",
        family="reference",
        year=2016,
        paper="https://arxiv.org/abs/1610.01644",
        summary="Learns a linear head on the frozen final feature.",
    )
    starts_at_backbone = True

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Make the head; the backbone stays outside the trained module."""
        module = _Head(backbone.info.feature_width, num_classes)
        return Adapted(module, frozenset({"head.weight", "head.bias"}), merge=nothing_to_merge)


class MLPHeadSettings(MethodSettings):
    """The shape of the head."""

    layers: int = Field(
        3, ge=2, le=16, description="linear layers, the classifier included, k", json_schema_extra={"search": [2, 3, 5]}
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout behind every hidden layer")


class MLPHead(_HeadAlone[MLPHeadSettings]):
    """Learns k linear layers with ReLU between them; the hidden ones are as wide as the feature (VPT, section 4.1).

    The authors' code also has a batch norm behind every ReLU, of which the paper says nothing. It is left out here:
    its running statistics would change without being learned. The figure that the paper prints is the same either way.
    """

    card = MethodCard(
        name="mlp_head",
        title="Mlp-k",
        family="reference",
        year=2022,
        paper="https://arxiv.org/abs/2203.12119",
        summary="Learns a head of several layers on the frozen final feature.",
    )
    Settings = MLPHeadSettings

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Make the head; the backbone stays outside the trained module."""
        width, settings = backbone.info.feature_width, self.settings
        parts = ((_hidden_layer(width), nn.ReLU(), nn.Dropout(settings.dropout)) for _ in range(settings.layers - 1))
        module = _Head(width, num_classes, nn.Sequential(*(layer for part in parts for layer in part)))
        return Adapted(module, frozenset(name for name, _ in module.named_parameters()))


class _Head(nn.Module):
    """Maps the final feature (B, D) to logits (B, C), through hidden layers where there are any."""

    def __init__(self, width: int, num_classes: int, hidden: nn.Module | None = None) -> None:
        super().__init__()
        self.hidden = hidden or nn.Identity()
        self.head = new_head(width, num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        return cast("Tensor", self.head(self.hidden(inputs.features["final"])))


def _hidden_layer(width: int) -> nn.Linear:
    """Make a layer with the authors' weights: drawn for a ReLU, by the number of outputs (He et al., 2015)."""
    layer = nn.Linear(width, width)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
