"""Mlp-k: a head of several linear layers on the frozen backbone's final feature."""

from __future__ import annotations

from typing import cast

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
)

__all__ = ["MLPHead", "MLPHeadSettings"]


class MLPHeadSettings(MethodSettings):
    """The shape of the head."""

    layers: int = Field(
        3, ge=2, le=16, description="linear layers, the classifier included, k", json_schema_extra={"search": [2, 3, 5]}
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout behind every hidden layer")


class MLPHead(Method[MLPHeadSettings]):
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
    defaults = TrainingDefaults(lr=1e-3, lr_range=(1e-4, 1e-1))

    def features(self, backbone: BackboneInfo) -> FrozenFeatures:
        """The head eats the final feature."""
        return FinalFeature()

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Make the head; the backbone stays outside the trained module."""
        module = _DeepHead(backbone.info.width, num_classes, self.settings)
        return Adapted(module, frozenset(name for name, _ in module.named_parameters()))


class _DeepHead(nn.Module):
    def __init__(self, width: int, num_classes: int, settings: MLPHeadSettings) -> None:
        super().__init__()
        self.hidden = nn.Sequential()
        for _ in range(settings.layers - 1):
            self.hidden.extend([_hidden_layer(width), nn.ReLU(), nn.Dropout(settings.dropout)])
        self.head = new_head(width, num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        return cast("Tensor", self.head(self.hidden(inputs.features["final"])))


def _hidden_layer(width: int) -> nn.Linear:
    """Make a layer with the authors' weights: drawn for a ReLU, by the number of outputs (He et al., 2015)."""
    layer = nn.Linear(width, width)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
