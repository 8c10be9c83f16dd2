"""Hydra: a low-rank branch beside a linear layer and one behind it."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from pydantic import Field
from torch import Tensor, nn

from petlbench import MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._layers import OwnLayerMethod, UpdatedLinear

__all__ = ["Hydra", "HydraSettings"]


class HydraSettings(MethodSettings):
    """Settings of the branches; the paper puts them on the last layer of the MLPs."""

    rank: int = Field(
        4,
        ge=1,
        le=1024,
        description="rank r of each branch; 4 makes the paper's 0.28 M",
        json_schema_extra={"search": [2, 4, 8, 16]},
    )
    scale: float = Field(
        1.0, gt=0, le=100, description="factor on what the branches add", json_schema_extra={"search": [0.1, 1, 10]}
    )
    targets: Literal["fc2", "proj", "proj,fc2"] = Field("fc2", description="which linear layers of a block are adapted")


class Hydra(OwnLayerMethod[HydraSettings]):
    """Gives y + s · (B A x + D C y) for a frozen layer's y = W x + b (Hydra, eq. 5).

    One branch reads what the layer reads and finds new features, as LoRA does; the other reads what it gives and
    combines them, as adapters do. Both are linear, with biases as in the authors' code, so they fold into the layer.
    """

    card = MethodCard(
        name="hydra",
        title="Hydra",
        family="low-rank",
        year=2023,
        paper="https://arxiv.org/abs/2309.06922",
        summary="Learns low-rank maps of the input and of the output of every MLP's last layer.",
    )
    Settings = HydraSettings
    defaults = TrainingDefaults(lr=1e-3, weight_decay=1e-4)

    def layer(self, base: nn.Linear) -> UpdatedLinear:
        """The layer around a target."""
        return _Branched(base, self.settings)


class _Branch(nn.Module):
    def __init__(self, reads: int, gives: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(reads, rank), nn.Linear(rank, gives)
        nn.init.normal_(self.down.weight, std=0.02)
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.up(self.down(x)))

    def matrix(self) -> Tensor:
        """The branch as one matrix, (O, I)."""
        return self.up.weight @ self.down.weight

    def constant(self) -> Tensor:
        """What the branch gives for zeros, (O,)."""
        return self.up.weight @ self.down.bias + self.up.bias


class _Branched(UpdatedLinear):
    adapter_layer_names: ClassVar[tuple[str, ...]] = ("parallel", "sequential")

    def __init__(self, base: nn.Linear, settings: HydraSettings) -> None:
        super().__init__(base)
        self.scale = settings.scale
        self.parallel = _Branch(base.in_features, base.out_features, settings.rank)
        self.sequential = _Branch(base.out_features, base.out_features, settings.rank)

    def forward(self, x: Tensor) -> Tensor:
        output = self.base(x)
        return cast("Tensor", output + self.scale * (self.parallel(x) + self.sequential(output)))

    def update(self) -> tuple[Tensor, Tensor | None]:
        behind, bias = self.sequential.matrix(), self.parallel.constant() + self.sequential.constant()
        if self.base.bias is not None:
            bias = bias + behind @ self.base.bias
        return self.scale * (self.parallel.matrix() + behind @ self.base.weight), self.scale * bias
