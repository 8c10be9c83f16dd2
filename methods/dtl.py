"""Disentangled transfer learning: a low-rank side path that reads every block and enters the late ones alone."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    Inputs,
    Method,
    MethodCard,
    MethodSettings,
    TrainingDefaults,
    new_head,
)
from petlbench.methods._branches import learned_names

__all__ = ["DTL", "CompactSideNetwork", "DTLPlus", "DTLSettings"]


class DTLSettings(MethodSettings):
    """Settings of the side path; the defaults are the authors'."""

    rank: int = Field(2, ge=1, le=1024, description="rank r of each block's map", json_schema_extra={"search": [2, 4]})
    beta: float = Field(100.0, gt=0, le=1e4, description="steepness of the activation h sigmoid(beta h)")
    first_block: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="block (0-based) from whose output on the side path is added; none for the later half, the paper's "
        "M = 7 of 12 counted from 1",
    )
    pooling: Literal["backbone", "patch_mean"] = Field(
        "backbone",
        description="what the head reads: the backbone's own final feature, as for every other method, or the mean of "
        "the patches, normed behind it, as in the authors' code",
    )


class DTLPlusSettings(DTLSettings):
    """Settings of DTL+; the authors choose the kernel for every dataset."""

    kernel: int = Field(
        3,
        ge=1,
        le=15,
        description="height and width of the convolution; the authors' 19 scripts have 3 (6), 4 (4) and 5 (9)",
        json_schema_extra={"search": [3, 4, 5]},
    )


class DTL(Method[DTLSettings]):
    """Sums low-rank maps of the blocks' inputs in a side path, which is added behind the late blocks (DTL, section 3).

    Gradients stop at the first block that the side path enters: the blocks in front of it keep nothing for them.
    """

    card = MethodCard(
        name="dtl",
        title="DTL",
        family="side network",
        year=2024,
        paper="https://arxiv.org/abs/2312.07856",
        summary="Learns a low-rank side path that reads every block and is added behind the late ones.",
    )
    Settings: ClassVar[type[MethodSettings]] = DTLSettings
    # The rate is the default of the authors' program; their scripts have 3e-5 to 1e-2.
    defaults = TrainingDefaults(lr=1e-3, weight_decay=0.05, lr_range=(3e-5, 1e-2), published_rates=(3e-5, 1e-2))
    # Not with every setting.
    starts_at_backbone = False

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs tokens of one width, and a block that the side path enters."""
        if lacking := backbone.lacks("isotropic"):
            return lacking
        if self._first_block(backbone) >= backbone.blocks:
            return f"first_block is {self.settings.first_block}, but {backbone.name} has {backbone.blocks} blocks"
        return None

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Make the side path and a head."""
        info = backbone.info
        side = CompactSideNetwork(info, self.settings, self._first_block(info), self._convolution(info.width))
        module = _Sided(backbone, side, num_classes)
        return Adapted(module, learned_names(module, "side."))

    def _first_block(self, info: BackboneInfo) -> int:
        return info.blocks // 2 if self.settings.first_block is None else self.settings.first_block

    def _convolution(self, width: int) -> nn.Module | None:
        return None


class DTLPlus(DTL):
    """DTL with one depthwise convolution, shared by the late blocks, on the patches of what is added."""

    card = MethodCard(
        name="dtl_plus",
        title="DTL+",
        family="side network",
        year=2024,
        paper="https://arxiv.org/abs/2312.07856",
        summary="DTL with a shared depthwise convolution on what is added to the patches.",
    )
    Settings = DTLPlusSettings

    def _convolution(self, width: int) -> nn.Module:
        kernel = cast("DTLPlusSettings", self.settings).kernel
        # An even kernel sees one patch more behind than in front, as with the authors' padding.
        return nn.Conv2d(width, width, kernel, padding="same", groups=width, bias=False)


class CompactSideNetwork(nn.Module):
    """The side path h: h grows by x_i A_i B_i at the input x_i of block i, and theta(h) is added behind late blocks.

    Args:
        info: The frozen backbone.
        settings: Rank and activation.
        first_block: Block from whose output on theta(h) is added.
        convolution: Acts on theta(h) of the patches, or None.
    """

    def __init__(
        self, info: BackboneInfo, settings: DTLSettings, first_block: int, convolution: nn.Module | None
    ) -> None:
        super().__init__()
        self.first_block, self.beta, self.prefix = first_block, settings.beta, info.prefix_tokens
        self.pools_patches = settings.pooling == "patch_mean"
        self.down = nn.Parameter(torch.empty(info.blocks, settings.rank, info.width))
        self.up = nn.Parameter(torch.zeros(info.blocks, info.width, settings.rank))
        for matrix in self.down:
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))
        self.convolution = convolution

    def grown(self, layer: int, side: Tensor, tokens: Tensor) -> Tensor:
        """Add a block's low-rank map of its input to the side path.

        Args:
            layer: The block's number.
            side: The side path so far, (B, N, D).
            tokens: What the block reads, (B, N, D).

        Returns:
            The side path, (B, N, D).
        """
        linear = nn.functional.linear
        return side + linear(linear(tokens, self.down[layer]), self.up[layer])

    def added(self, side: Tensor) -> Tensor:
        """Turn the side path (B, N, D) into what is added behind a block, theta(h) (B, N, D)."""
        active = side * torch.sigmoid(self.beta * side)
        if self.convolution is None:
            return active
        prefix, patches = active[:, : self.prefix], active[:, self.prefix :].transpose(1, 2)
        rows = math.isqrt(patches.shape[2])
        grid = self.convolution(patches.reshape(*patches.shape[:2], rows, rows))
        return torch.cat([prefix, grid.flatten(2).transpose(1, 2).to(prefix.dtype)], dim=1)


class _Sided(nn.Module):
    """A frozen backbone with a side path and a head."""

    def __init__(self, backbone: Backbone, side: CompactSideNetwork, num_classes: int) -> None:
        super().__init__()
        self._run = backbone.pooled_through
        self.backbone, self.side = backbone.module, side
        self.head = new_head(backbone.info.feature_width, num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        """Map the fine view (B, 3, H, W) to logits (B, C)."""
        path = _Path(self.side)
        return cast("Tensor", self.head(self._run(inputs.views["fine"], path.enter, path.leave)))


class _Path:
    """The side path of one forward pass, alongside the backbone's blocks."""

    def __init__(self, side: CompactSideNetwork) -> None:
        self._side = side
        self._state = torch.zeros(())

    def enter(self, layer: int, tokens: Tensor) -> Tensor:
        if layer == 0:
            self._state = torch.zeros_like(tokens)
        if layer > self._side.first_block:
            tokens = tokens + self._side.added(self._state)
        self._state = self._side.grown(layer, self._state, tokens)
        return tokens

    def leave(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._side.added(self._state)
        if not self._side.pools_patches:
            return tokens
        # All tokens become the mean of the patches: however the backbone pools, that is what it norms and hands on.
        return tokens[:, self._side.prefix :].mean(dim=1, keepdim=True).expand_as(tokens)
