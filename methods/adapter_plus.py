"""Adapter+: a bottleneck network behind every block, with a learned factor on each of its channels."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from timm.layers.drop import DropPath
from torch import Tensor, nn

from petlbench import Adapted, Backbone, BackboneInfo, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._branches import BehindMLP, learned_names, norms_elsewhere

__all__ = ["AdapterPlus", "AdapterPlusSettings"]


class AdapterPlusSettings(MethodSettings):
    """Settings of the adapters; the defaults are those of the authors' code."""

    bottleneck: int = Field(
        8,
        ge=1,
        le=4096,
        description="width r of an adapter's middle; the authors choose 1 to 32 for every dataset",
        json_schema_extra={"search": [1, 2, 4, 8, 16, 32]},
    )
    drop_path: float = Field(0.1, ge=0, lt=1, description="share of the images that pass an adapter by, in training")


class AdapterPlus(Method[AdapterPlusSettings]):
    """Gives x + γ · up(GELU(down(x))) behind every block's last residual sum x (Adapter+, section 3, post-adapter).

    γ has a number a channel. As in the authors' code, which follows Houlsby's paper there, both maps are drawn with a
    deviation of 0.01 and γ is one, so the start is near the frozen backbone and not at it.
    """

    card = MethodCard(
        name="adapter_plus",
        title="Adapter+",
        family="adapter",
        year=2024,
        paper="https://arxiv.org/abs/2406.06820",
        summary="Learns a bottleneck network behind every block with a factor on each channel.",
    )
    Settings = AdapterPlusSettings
    defaults = TrainingDefaults(lr=1e-3, weight_decay=1e-4, published_rates=(1e-3,))

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks that end in the residual sum behind their MLP."""
        return norms_elsewhere(backbone)

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put an adapter behind every block and a head on the backbone."""
        for block, width in zip(backbone.blocks(), backbone.info.widths, strict=True):
            BehindMLP.put_in(block, _Scaled(width, self.settings))
        module = Classifier(backbone, num_classes)
        return Adapted(module, learned_names(module, ".adapter."))


class _Scaled(nn.Module):
    def __init__(self, width: int, settings: AdapterPlusSettings) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, settings.bottleneck), nn.Linear(settings.bottleneck, width)
        self.factor, self.drop_path = nn.Parameter(torch.ones(width)), DropPath(settings.drop_path)
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        added = self.up(nn.functional.gelu(self.down(x)))
        return cast("Tensor", self.drop_path(added) * self.factor)
