"""OFT by peft, and BOFT: weights turned by learned orthogonal matrices made of blocks."""

from __future__ import annotations

from typing import cast

import peft
import torch
from pydantic import Field
from torch import Tensor, nn

from petlbench import Backbone, Companion, LinearShape, MethodCard, TrainingDefaults
from petlbench.methods._peft import LayerMethod, PeftMethod, Targets, TargetSettings, cannot_cut

__all__ = ["BOFT", "OFT", "BOFTSettings", "ButterflyLinear", "OFTSettings"]


class OFTSettings(TargetSettings):
    """Settings of OFT; peft's defaults, but for the exact Cayley transform."""

    block_size: int = Field(
        32,
        ge=2,
        le=1024,
        description="width b of a block, all of whose channels turn",
        json_schema_extra={"search": [16, 32]},
    )
    cayley_terms: int = Field(
        0, ge=0, le=20, description="terms of the series in the place of the inverse in Cayley's transform; 0 for exact"
    )


class BOFTSettings(TargetSettings):
    """The settings of the paper's runs on ViT-L, all of whose linear layers turn."""

    block_size: int = Field(
        4, ge=2, le=1024, multiple_of=2, description="width b of a block", json_schema_extra={"search": [4, 8]}
    )
    factors: int = Field(
        4, ge=1, le=10, description="number m of factors that are multiplied", json_schema_extra={"search": [2, 4]}
    )
    biases: bool = Field(True, description="learn the targets' biases too")
    targets: Targets = Field("q,k,v,proj,fc1,fc2", description="which linear layers of a block are adapted")


class OFT(PeftMethod[OFTSettings]):
    """Multiplies W by a block-diagonal orthogonal R = (I - Q)(I + Q)⁻¹ with Q skew-symmetric (OFT, section 3).

    peft's own default is a series of five terms, which is only nearly orthogonal.
    """

    card = MethodCard(
        name="oft",
        title="OFT",
        family="orthogonal",
        year=2023,
        paper="https://arxiv.org/abs/2306.07280",
        summary="Learns a block-diagonal rotation of the weights' input space.",
    )
    Settings = OFTSettings

    def misfit(self, target: LinearShape) -> str | None:
        """The input channels are cut into blocks."""
        return cannot_cut(target.in_features, "blocks", self.settings.block_size)

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Blocks as set."""
        terms = self.settings.cayley_terms
        return peft.OFTConfig(
            oft_block_size=self.settings.block_size,
            use_cayley_neumann=terms > 0,
            num_cayley_neumann_terms=terms,
            target_modules=names,
        )


class BOFT(LayerMethod[BOFTSettings]):
    """Multiplies W by m block-diagonal orthogonal factors, each on other pairs of half blocks, and scales its outputs.

    Not by peft, whose layer compiles a CUDA kernel when it is made and silently goes down to one factor where that
    fails. Scales and biases are learned as in the authors' runs, and only the free entries of a block are kept.
    """

    card = MethodCard(
        name="boft",
        title="BOFT",
        family="orthogonal",
        year=2024,
        paper="https://arxiv.org/abs/2311.06243",
        summary="Learns a rotation of the weights' input space as a product of sparse rotations, and output scales.",
    )
    Settings = BOFTSettings
    defaults = TrainingDefaults(lr=1e-3, decay="matrices")

    def misfit(self, target: LinearShape) -> str | None:
        """The last factor mixes blocks across 2ᵐ⁻¹ of them."""
        return cannot_cut(
            target.in_features, "groups of blocks", self.settings.block_size * 2 ** (self.settings.factors - 1)
        )

    def wrap(self, backbone: Backbone, names: list[str]) -> Companion | None:
        """Put a butterfly around each target."""
        for name in names:
            base = cast("nn.Linear", backbone.module.get_submodule(name))
            layer = ButterflyLinear(base, self.settings.block_size, self.settings.factors)
            if self.settings.biases:
                layer.adapter_layer_names = (*layer.adapter_layer_names, "base.bias")
            backbone.replace(name, layer)
        return None


class ButterflyLinear(nn.Module):
    """A linear layer with weight s ⊙ (W Rᵀ), where R is a product of m sparse orthogonal factors (BOFT, eq. 4).

    The first factor turns within blocks; factor i + 1 pairs the half blocks that stand 2ⁱ places apart.

    Args:
        base: The frozen layer, D_in -> D_out.
        block: Width of a block, b.
        factors: Number of factors, m.
    """

    adapter_layer_names: tuple[str, ...] = ("angles", "scale")

    def __init__(self, base: nn.Linear, block: int, factors: int) -> None:
        super().__init__()
        self.base, self.block = base, block
        blocks = base.in_features // block
        place = base.weight.device
        self.angles = nn.Parameter(torch.zeros(factors, blocks, block * (block - 1) // 2, device=place))
        self.scale = nn.Parameter(torch.ones(base.out_features, device=place))
        orders = [_order(base.in_features, block, factor) for factor in range(factors)]
        # Plain values, as an index tensor on device meta has none.
        self.register_buffer("order", torch.tensor(orders, device=place), persistent=False)
        inverse = [sorted(range(len(order)), key=order.__getitem__) for order in orders]
        self.register_buffer("inverse", torch.tensor(inverse, device=place), persistent=False)
        rows, columns = zip(*[(i, j) for i in range(block) for j in range(i + 1, block)], strict=True)
        self.register_buffer("above", torch.tensor([rows, columns], device=place), persistent=False)

    def weight(self) -> Tensor:
        """The weight as learned, (D_out, D_in)."""
        weight: Tensor = self.base.weight
        for factor, turn in enumerate(self.rotations()):
            order, inverse = self.get_buffer("order")[factor], self.get_buffer("inverse")[factor]
            blocks = weight[:, order].reshape(len(weight), -1, self.block)
            weight = torch.einsum("onk,njk->onj", blocks, turn).flatten(1)[:, inverse]
        return self.scale[:, None] * weight

    def rotations(self) -> Tensor:
        """The blocks (I - Q)(I + Q)⁻¹ of every factor, (m, D_in / b, b, b), with Q skew-symmetric."""
        rows, columns = self.get_buffer("above")
        upper = self.angles.new_zeros(*self.angles.shape[:2], self.block, self.block)
        upper[..., rows, columns] = self.angles
        skew = upper - upper.transpose(-1, -2)
        identity = torch.eye(self.block, dtype=skew.dtype, device=skew.device)
        turned: Tensor = torch.linalg.solve(identity + skew, identity - skew, left=False)
        return turned

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D_in) to (B, N, D_out)."""
        return nn.functional.linear(x, self.weight(), self.base.bias)

    def merge(self) -> None:
        """Give the wrapped layer the weight as learned."""
        self.base.weight.data = self.weight()

    def get_base_layer(self) -> nn.Linear:
        """The wrapped layer."""
        return self.base


def _order(width: int, block: int, factor: int) -> list[int]:
    """The channels in the order in which a factor's blocks hold them."""
    if factor == 0:
        return list(range(width))
    half, apart = block // 2, 2**factor
    pairs = [start * half for near in range(apart) for start in (near, near + apart)]
    return [group + start + k for group in range(0, width, block * apart) for start in pairs for k in range(half)]
