"""Heads on the frozen backbone's final feature: linear probing, and Mlp-k with several layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, Self, TypeVar, cast

from pydantic import Field, model_validator
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
    TaskLoss,
    TrainingDefaults,
    new_head,
    nothing_to_merge,
)
from petlbench.methods._lbfgs import solve_head

__all__ = ["HeadSettings", "LinearProbing", "MLPHead", "MLPHeadSettings"]


class HeadSettings(MethodSettings):
    """How a linear head is found."""

    solver: Literal["steps", "lbfgs"] = Field(
        "steps",
        description="steps of the optimiser, or lbfgs: where C x the sum of the images' losses + |W|²/2 is least",
    )
    C: float = Field(
        1.0,
        ge=1e-9,
        le=1e9,
        description="strength of the losses against the penalty, with lbfgs",
        json_schema_extra={"search_solved": [1e-6, 1e6]},
    )


S = TypeVar("S", bound=HeadSettings)


class _HeadAlone(Method[S]):
    """Learns a head and nothing else, so the backbone need see each image only once."""

    defaults = TrainingDefaults(lr=1e-3, lr_range=(1e-4, 1e-1))

    @property
    def is_solved(self) -> bool:
        """Whether L-BFGS finds the head."""
        return self.settings.solver == "lbfgs"

    def solve(self, module: _Head) -> Callable[[Inputs, TaskLoss], None] | None:
        """What finds the head in one go, where that is wanted."""
        return partial(module.solve, c=self.settings.C) if self.is_solved else None

    def features(self, backbone: BackboneInfo) -> FrozenFeatures:
        """The head takes the final feature."""
        return FinalFeature()


class LinearProbing(_HeadAlone[HeadSettings]):
    """Learns a linear head on the final feature."""

    card = MethodCard(
        name="linear",
        title="Linear probing",
        family="reference",
        year=2016,
        paper="https://arxiv.org/abs/1610.01644",
        summary="Learns a linear head on the frozen final feature.",
    )
    Settings = HeadSettings
    starts_at_backbone = True

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Make the head; the backbone stays outside the trained module."""
        module = _Head(backbone.info.feature_width, num_classes)
        learnable = frozenset({"head.weight", "head.bias"})
        return Adapted(module, learnable, merge=nothing_to_merge, solve=self.solve(module))


class MLPHeadSettings(HeadSettings):
    """The shape of the head."""

    layers: int = Field(
        3, ge=1, le=16, description="linear layers, the classifier included, k", json_schema_extra={"search": [2, 3, 5]}
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout behind every hidden layer")

    @model_validator(mode="after")
    def _is_linear(self) -> Self:
        if self.solver == "lbfgs" and self.layers > 1:
            raise ValueError(f"solver = lbfgs finds a linear head (layers = 1), not {self.layers} layers")
        return self


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
        return Adapted(module, frozenset(name for name, _ in module.named_parameters()), solve=self.solve(module))


class _Head(nn.Module):
    """Maps the final feature (B, D) to logits (B, C), through hidden layers where there are any."""

    def __init__(self, width: int, num_classes: int, hidden: nn.Module | None = None) -> None:
        super().__init__()
        self.hidden = hidden or nn.Identity()
        self.head = new_head(width, num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        return cast("Tensor", self.head(self.hidden(inputs.features["final"])))

    def solve(self, inputs: Inputs, loss: TaskLoss, c: float) -> None:
        """Set the head by L-BFGS, where no hidden layer is in front of it."""
        solve_head(self.head, inputs.features["final"], loss, c)


def _hidden_layer(width: int) -> nn.Linear:
    """Make a layer with the authors' weights: drawn for a ReLU, by the number of outputs (He et al., 2015)."""
    layer = nn.Linear(width, width)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
