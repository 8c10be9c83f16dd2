"""Visual prompt tuning: learned tokens beside those of the image."""

from __future__ import annotations

import math
from typing import Literal, cast

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
)

__all__ = ["VPT", "VPTSettings"]


class VPTSettings(MethodSettings):
    """Settings of the prompts."""

    depth: Literal["deep", "shallow"] = Field("deep", description="fresh prompts for every block, or for the first")
    num_tokens: int = Field(
        16, ge=1, le=1024, description="prompts a block", json_schema_extra={"search": [5, 10, 16, 50, 100]}
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the prompts")


class VPT(Method[VPTSettings]):
    """Puts learned prompts between the class token and the patches (VPT, eq. 4 shallow, eq. 5 deep).

    As in the authors' code the head's weights have a deviation of sqrt(2 / C), and each image has dropouts of its own.
    """

    card = MethodCard(
        name="vpt",
        title="VPT",
        family="prompt",
        year=2022,
        paper="https://arxiv.org/abs/2203.12119",
        summary="Learns prompt tokens that every block reads beside the image's.",
    )
    Settings = VPTSettings
    defaults = TrainingDefaults(lr=1e-3, lr_range=(1e-4, 1e-1), sgd_lr_range=(0.05, 50))

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs plain blocks, which take any number of tokens."""
        return backbone.lacks("isotropic")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Make the prompts and a head."""
        backbone.expect_prefix_tokens(self.settings.num_tokens)
        module = _Prompted(backbone, num_classes, self.settings)
        return Adapted(module, frozenset({"prompts", "head.weight", "head.bias"}))


class _Prompted(nn.Module):
    """A frozen backbone whose blocks read prompts."""

    def __init__(self, backbone: Backbone, num_classes: int, settings: VPTSettings) -> None:
        super().__init__()
        info = backbone.info
        self._run, self._prefix, self._tokens = backbone.pooled_through, info.prefix_tokens, settings.num_tokens
        self.backbone = backbone.module
        layers = info.blocks if settings.depth == "deep" else 1
        self.prompts = nn.Parameter(torch.empty(layers, settings.num_tokens, info.width))
        bound = math.sqrt(6 / (3 * info.patch**2 + info.width))
        nn.init.uniform_(self.prompts, -bound, bound)
        self.dropout = nn.Dropout(settings.dropout)
        # The authors' head: prompts are moved by what comes through it, fifty times as much as through a ViT's own.
        self.head = nn.Linear(info.feature_width, num_classes)
        nn.init.kaiming_normal_(self.head.weight, mode="fan_out")

    def forward(self, inputs: Inputs) -> Tensor:
        """Map the fine view (B, 3, H, W) to logits (B, C)."""
        return cast("Tensor", self.head(self._run(inputs.views["fine"], self._prompted, self._without_prompts)))

    def _prompted(self, layer: int, tokens: Tensor) -> Tensor:
        """Put the prompts of a block in, in the place of those of the block before."""
        if layer >= len(self.prompts):
            return tokens
        prompts = self.dropout(self.prompts[layer].expand(len(tokens), -1, -1))
        patches = tokens[:, self._prefix :] if layer == 0 else tokens[:, self._prefix + self._tokens :]
        return torch.cat([tokens[:, : self._prefix], prompts.to(tokens.dtype), patches], dim=1)

    def _without_prompts(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens[:, : self._prefix], tokens[:, self._prefix + self._tokens :]], dim=1)
