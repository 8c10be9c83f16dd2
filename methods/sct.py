"""Salient channel tuning: a small linear map on the channels that matter most for the task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    Classifier,
    Inputs,
    Method,
    MethodCard,
    MethodSettings,
    TrainingDefaults,
)
from petlbench.methods._branches import learned_names

__all__ = ["SCT", "SCTSettings", "SalientChannels"]


class SCTSettings(MethodSettings):
    """Settings of the maps; the share is the authors', and so is the scale: their forward pass has none."""

    share: float = Field(
        0.125,
        gt=0,
        le=1,
        description="share of a token's channels that is tuned: K of D, 96 of 768",
        json_schema_extra={"search": [0.03125, 0.0625, 0.125, 0.25]},
    )
    scale: float = Field(
        1.0,
        gt=0,
        le=100,
        description="factor on what a map adds; the authors' 19 files name 0.3 in the middle, their code uses none",
        json_schema_extra={"search": [0.1, 0.15, 0.3, 0.5, 1]},
    )


class SCT(Method[SCTSettings]):
    """Adds s Linear(x) to K channels of the tokens between attention and MLP of every block (SCT, section 3).

    The channels are chosen once, in the frozen backbone: of each channel the L2 norm over all patches of a class, then
    the mean over the classes, and the K largest of each block. The linear map starts at small random
    values, as in the authors' code, so the start is near the frozen backbone and not at it.
    """

    card = MethodCard(
        name="sct",
        title="SCT",
        family="adapter",
        year=2023,
        paper="https://arxiv.org/abs/2309.08513",
        summary="Learns a small linear map on the most salient channels of every block.",
    )
    Settings = SCTSettings
    # The median of the rates of the authors' 19 tasks.
    defaults = TrainingDefaults(lr=6.2e-3, lr_range=(5e-4, 1e-1), published_rates=(7e-4, 7.5e-2))

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks that norm the tokens in front of the MLP and add its output to them."""
        return backbone.lacks("blocks", "qkv")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put a map between attention and MLP of every block and a head on the backbone."""
        maps = [
            self._put_in(block, width) for block, width in zip(backbone.blocks(), backbone.info.widths, strict=True)
        ]
        module = Classifier(backbone, num_classes)
        places = [f"backbone.{name}.norm2" for name in backbone.block_names()]
        return Adapted(
            module,
            learnable=learned_names(module, ".norm2.linear."),
            chosen=frozenset(f"{place}.index" for place in places),
            prepare=lambda batches: _choose(backbone, maps, num_classes, batches),
        )

    def _put_in(self, block: Any, width: int) -> SalientChannels:
        channels = max(1, round(width * self.settings.share))
        block.norm2 = SalientChannels(block.norm2, width, channels, self.settings.scale)
        block.drop_path2 = _Joined(block.drop_path2, block.norm2)
        return cast("SalientChannels", block.norm2)


class SalientChannels(nn.Module):
    """Tunes K channels of the tokens in front of a norm.

    The tokens also go around the norm and the MLP. So that they are tuned there as well, what was added is kept for
    `take`.

    Args:
        norm: The frozen norm.
        width: Channels of a token, D.
        channels: Tuned channels, K.
        scale: The factor s.
    """

    index: Tensor

    def __init__(self, norm: nn.Module, width: int, channels: int, scale: float) -> None:
        super().__init__()
        self.norm, self.width, self.scale = norm, width, scale
        self.linear = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("index", torch.arange(channels))
        self._added: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Tune and norm tokens, (B, N, D) to (B, N, D)."""
        tuned = self.scale * self.linear(x.index_select(-1, self.index))
        self._added = torch.zeros_like(x).index_copy(-1, self.index, tuned.to(x.dtype))
        return cast("Tensor", self.norm(x + self._added))

    def take(self) -> Tensor:
        """Hand out what the last call added to the tokens, (B, N, D), once."""
        added, self._added = self._added, None
        return cast("Tensor", added)


class _Joined(nn.Module):
    """The end of the MLP's branch: what is added to the tokens there, and what was added in front of the norm."""

    def __init__(self, inner: nn.Module, tuned: SalientChannels) -> None:
        super().__init__()
        self.inner = inner
        # No child of this module: it is the block's already.
        self._take = tuned.take

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.inner(x)) + self._take()


def _choose(
    backbone: Backbone,
    maps: Sequence[SalientChannels],
    num_classes: int,
    batches: Iterable[tuple[Inputs, Tensor]],
) -> None:
    """Choose every map's channels from the tokens that reach it in the frozen backbone."""
    squares = [torch.zeros(num_classes, tuned.width, device=tuned.index.device) for tuned in maps]
    scales = [tuned.scale for tuned in maps]
    seen: list[Tensor] = []
    hooks = [tuned.register_forward_pre_hook(lambda _module, args: seen.append(args[0])) for tuned in maps]
    for tuned in maps:
        tuned.scale = 0.0
    backbone.module.eval()
    for inputs, labels in batches:
        seen.clear()
        with torch.no_grad():
            backbone.pooled(inputs.views["fine"])
        for total, tokens in zip(squares, seen, strict=True):
            total.index_add_(0, labels, tokens[:, backbone.info.prefix_tokens :].square().sum(dim=1).to(total.dtype))
    for tuned, total, scale, hook in zip(maps, squares, scales, hooks, strict=True):
        tuned.index.copy_(total.sqrt().mean(dim=0).topk(len(tuned.index)).indices.sort().values)
        tuned.scale = scale
        hook.remove()
