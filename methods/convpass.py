"""Convpass: small convolutional networks beside attention and MLP of every block of a frozen backbone."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from petlbench import Adapted, Backbone, BackboneInfo, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._branches import learned_names, norms_elsewhere, quick_gelu, take_layer_scale

__all__ = ["Convpass", "ConvpassSettings"]


class ConvpassSettings(MethodSettings):
    """Settings of the convolutional bypasses."""

    bottleneck: int = Field(
        8, ge=1, le=1024, description="channels of the convolution", json_schema_extra={"search": [4, 8, 16, 32]}
    )
    placement: Literal["attention_mlp", "attention"] = Field(
        "attention_mlp", description="beside attention and MLP, or beside the attention alone"
    )
    scale: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="factor on what a bypass adds; the authors search it for every dataset",
        json_schema_extra={"search": [0.01, 0.1, 1, 10, 100]},
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout behind the convolution")
    convolution: Literal["identity", "xavier"] = Field(
        "xavier",
        description="the convolution at the start: Xavier's uniform draw (29 of the authors' 38 files) or the identity",
    )


class Convpass(Method[ConvpassSettings]):
    """Adds s · up(act(conv(act(down(x))))) beside attention and MLP, which read the same normed x.

    The patches go through the 3 x 3 convolution as a picture, every prefix token as a picture of its own of one pixel.
    What a bypass adds is not scaled by layer scale. ``up`` is zero at the start, so the frozen backbone is the start.
    """

    card = MethodCard(
        name="convpass",
        title="Convpass",
        family="adapter",
        year=2022,
        paper="https://arxiv.org/abs/2207.07039",
        summary="Learns convolutional bottleneck networks beside the attention and the MLP of every block.",
    )
    Settings = ConvpassSettings
    defaults = TrainingDefaults(lr=1e-3, weight_decay=1e-4, published_rates=(1e-3,))
    starts_at_backbone = True

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs one grid of patches from first to last, and a norm in front of attention and MLP."""
        return backbone.lacks("isotropic") or norms_elsewhere(backbone)

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put bypasses beside the parts of every block and a head on the backbone."""
        for block in backbone.blocks():
            block.attn = _Beside(block.attn, take_layer_scale(block, 1), self._bypass(backbone.info))
            if self.settings.placement == "attention_mlp":
                block.mlp = _Beside(block.mlp, take_layer_scale(block, 2), self._bypass(backbone.info))
        module = Classifier(backbone, num_classes)
        return Adapted(module, learned_names(module, ".bypass."))

    def _bypass(self, info: BackboneInfo) -> _Bypass:
        return _Bypass(info.width, info.prefix_tokens, info.image_size // info.patch, self.settings)


class _Bypass(nn.Module):
    """A convolutional bottleneck: s · up(dropout(act(conv(act(down(x)))))).

    Args:
        width: Channels of a token, D.
        prefix: Number of prefix tokens P.
        side: Patches along a side of the image, S.
        settings: The method's settings.
    """

    def __init__(self, width: int, prefix: int, side: int, settings: ConvpassSettings) -> None:
        super().__init__()
        channels = settings.bottleneck
        self.down, self.up = nn.Linear(width, channels), nn.Linear(channels, width)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.dropout = nn.Dropout(settings.dropout)
        self._prefix, self._side, self.scale = prefix, side, settings.scale
        nn.init.xavier_uniform_(self.down.weight)
        initialise = nn.init.dirac_ if settings.convolution == "identity" else nn.init.xavier_uniform_
        initialise(self.conv.weight)
        for tensor in (self.down.bias, self.conv.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(cast("Tensor", tensor))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, P + S S, D) to what is added to them, (B, P + S S, D)."""
        middle = quick_gelu(self.down(x))
        prefix, patches = middle[:, : self._prefix], middle[:, self._prefix :]
        # Around a picture of one pixel there is padding alone, so only the middle of the kernel sees a prefix token.
        prefix = nn.functional.linear(prefix, self.conv.weight[:, :, 1, 1], self.conv.bias)
        picture = torch.unflatten(patches.transpose(1, 2), 2, (self._side, self._side))
        patches = self.conv(picture).flatten(2).transpose(1, 2)
        middle = self.dropout(quick_gelu(torch.cat([prefix, patches], dim=1)))
        return self.scale * cast("Tensor", self.up(middle))


class _Beside(nn.Module):
    """A layer and its layer scale, with a bypass on the layer's input."""

    def __init__(self, inner: nn.Module, layer_scale: nn.Module, bypass: _Bypass) -> None:
        super().__init__()
        self.inner, self.layer_scale, self.bypass = inner, layer_scale, bypass

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return cast("Tensor", self.layer_scale(self.inner(x, *args, **kwargs)) + self.bypass(x))
