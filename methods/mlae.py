"""MLAE: a low-rank update cut into experts of rank one, some of which sit out each step."""

from __future__ import annotations

import math
from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from petlbench import MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._layers import OwnLayerMethod, UpdatedLinear
from petlbench.methods._peft import Targets

__all__ = ["MLAE", "MLAESettings"]


class MLAESettings(MethodSettings):
    """Settings of the experts."""

    rank: int = Field(
        8, ge=1, le=1024, description="experts a layer, each of rank one", json_schema_extra={"search": [4, 8, 16, 32]}
    )
    alpha: float = Field(
        1.0,
        gt=0,
        le=100,
        description="coefficient of every expert at the start",
        json_schema_extra={"search": [0.5, 1, 2]},
    )
    drop_rate: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of the experts that sit out a step, anew for each layer",
        json_schema_extra={"search": [0.0, 0.25, 0.5, 0.75]},
    )
    targets: Targets = Field("q,v", description="which linear layers of a block are updated")


class MLAE(OwnLayerMethod[MLAESettings]):
    """Adds the sum of λ_i b_i a_iᵀ over experts i to frozen projections (MLAE, section 3).

    In a training step each expert sits out with the drop rate, and the others weigh as much more. a is drawn, b starts
    at zero, λ at alpha, so the frozen backbone is the start.
    """

    card = MethodCard(
        name="mlae",
        title="MLAE",
        family="low-rank",
        year=2024,
        paper="https://arxiv.org/abs/2405.18897",
        summary="Learns low-rank updates made of experts of rank one, which are masked at random.",
    )
    Settings = MLAESettings
    defaults = TrainingDefaults(lr=1e-3)

    def layer(self, base: nn.Linear) -> UpdatedLinear:
        """The layer around a target."""
        return _Experts(base, self.settings)


class _Experts(UpdatedLinear):
    adapter_layer_names: ClassVar[tuple[str, ...]] = ("a", "b", "coefficients")

    def __init__(self, base: nn.Linear, settings: MLAESettings) -> None:
        super().__init__(base)
        self.a = nn.Parameter(torch.empty(settings.rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, settings.rank))
        self.coefficients = nn.Parameter(torch.full((settings.rank,), settings.alpha))
        self.mask = nn.Dropout(settings.drop_rate)
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        weighed = nn.functional.linear(x, self.a) * self.mask(self.coefficients)
        return cast("Tensor", self.base(x) + nn.functional.linear(weighed, self.b))

    def update(self) -> tuple[Tensor, Tensor | None]:
        return (self.b * self.coefficients) @ self.a, None
