"""Ladder side-tuning: a narrow transformer that reads the states between the frozen backbone's blocks."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    FrozenFeatures,
    Inputs,
    LayerStates,
    Method,
    MethodCard,
    MethodSettings,
    TrainingDefaults,
    new_head,
)

__all__ = ["LST", "LSTSettings", "LadderNetwork"]


class LSTSettings(MethodSettings):
    """Settings of the side network; the defaults are the authors'."""

    reduction: int = Field(
        8,
        ge=1,
        le=64,
        description="backbone width over side network width",
        json_schema_extra={"search": [4, 8, 16]},
    )
    temperature: float = Field(0.1, gt=0, le=100, description="divides a gate's value in front of its sigmoid, T")


class LST(Method[LSTSettings]):
    """Learns a side network with a block for every block of the backbone, and never goes back through the backbone.

    The paper adapts language models and gives the side network weights pruned from the backbone's. Here, as far as
    can be told in the ViTs of later papers, the side blocks are plain ViT blocks with random weights. All L + 1 states
    of an image are large, so they are preloaded only when that is asked for.
    """

    card = MethodCard(
        name="lst",
        title="LST",
        family="side network",
        year=2022,
        paper="https://arxiv.org/abs/2206.06522",
        summary="Learns a narrow transformer that reads the states between the frozen blocks.",
    )
    Settings = LSTSettings
    # The authors' rate for the side network.
    defaults = TrainingDefaults(lr=3e-3, lr_range=(5e-5, 5e-3), published_rates=(3e-3,))
    preloads_by_default = False

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs states of one width and a side network whose width its heads can share."""
        if lacking := backbone.lacks("isotropic"):
            return lacking
        return backbone.cannot_be_narrowed(self.settings.reduction)

    def features(self, backbone: BackboneInfo) -> FrozenFeatures:
        """The tokens in front of the first block and behind every block."""
        return LayerStates(tuple(range(backbone.blocks + 1)))

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Build the side network; the backbone stays outside the trained module."""
        module = LadderNetwork(backbone.info, self.settings, num_classes)
        return Adapted(module, frozenset(name for name, _ in module.named_parameters()))


class LadderNetwork(nn.Module):
    """A side network of width d = D / reduction (LST, section 3).

    It starts at the first block's input, mapped down. In front of side block i it is mixed with the output of the
    backbone's block i: mu_i s + (1 - mu_i) down_i(h_i) with mu_i = sigmoid(alpha_i / T). Its last tokens are normed,
    pooled and mapped up to the backbone's width for the head.

    Args:
        info: The frozen backbone; number of blocks and heads are shared with it.
        settings: The side network's width and the gates' temperature.
        num_classes: Number of classes C.
    """

    def __init__(self, info: BackboneInfo, settings: LSTSettings, num_classes: int) -> None:
        super().__init__()
        width = info.width // settings.reduction
        self._temperature = settings.temperature
        self._has_class_token, self._prefix = "class_token" in info.capabilities, info.prefix_tokens
        self.downs = nn.ModuleList(nn.Linear(info.width, width) for _ in range(info.blocks + 1))
        self.blocks = nn.ModuleList(_block(width, info.heads) for _ in range(info.blocks))
        self.gates = nn.Parameter(torch.zeros(info.blocks))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, info.width)
        self.head = new_head(info.width, num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        """Map the states (B, L + 1, N, D) to logits (B, C)."""
        states = inputs.features["states"]
        share = torch.sigmoid(self.gates / self._temperature)
        side = self.downs[0](states[:, 0])
        for layer, block in enumerate(self.blocks):
            read = self.downs[layer + 1](states[:, layer + 1])
            side = block(share[layer] * side + (1 - share[layer]) * read)
        return cast("Tensor", self.head(self.up(self._pooled(self.norm(side)))))

    def _pooled(self, tokens: Tensor) -> Tensor:
        """Take the class token, or the mean of the patches where there is none: (B, N, d) to (B, d)."""
        return tokens[:, 0] if self._has_class_token else tokens[:, self._prefix :].mean(dim=1)


def _block(width: int, heads: int) -> nn.Module:
    """Make a plain ViT block, four times as wide inside its MLP, with ViT's random weights."""
    block: nn.Module = Block(width, heads, mlp_ratio=4.0, qkv_bias=True)
    for layer in block.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return block
