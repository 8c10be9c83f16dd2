"""What the methods share that put learned tokens beside those of the image."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from petlbench import Backbone, BackboneInfo, Inputs

__all__ = ["Prompted", "drawn_head", "drawn_prompts"]


class Prompted(nn.Module):
    """A frozen backbone whose blocks read prompts.

    Args:
        backbone: The backbone.
        prompts: For each of the first blocks its prompts (T, D). They take the place of those of the block before;
            where a block has none, it reads on what that one made of its own.
        head: Maps the final feature to logits.
        dropout: Dropout on the prompts.
    """

    def __init__(
        self, backbone: Backbone, prompts: nn.Parameter | nn.ParameterList, head: nn.Linear, dropout: float
    ) -> None:
        super().__init__()
        info = backbone.info
        self._run, self._prefix, self._tokens = backbone.pooled_through, info.prefix_tokens, info.tokens
        self.backbone = backbone.module
        self.prompts = prompts
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def forward(self, inputs: Inputs) -> Tensor:
        """Map the fine view (B, 3, H, W) to logits (B, C)."""
        return cast("Tensor", self.head(self._run(inputs.views["fine"], self._prompted, self._without_prompts)))

    def transformed(self, prompts: Tensor) -> Tensor:
        """What a block reads of its prompts (B, T, D)."""
        return prompts

    def _prompted(self, layer: int, tokens: Tensor) -> Tensor:
        """Put the prompts of a block in, in the place of those of the block before."""
        if layer >= len(self.prompts) or len(self.prompts[layer]) == 0:
            return tokens
        prompts = self.transformed(self.dropout(self.prompts[layer].expand(len(tokens), -1, -1)))
        before = len(self.prompts[layer - 1]) if layer > 0 else 0
        patches = tokens[:, self._prefix + before :]
        return torch.cat([tokens[:, : self._prefix], prompts.to(tokens.dtype), patches], dim=1)

    def _without_prompts(self, tokens: Tensor) -> Tensor:
        patches = tokens[:, tokens.shape[1] - self._tokens + self._prefix :]
        return torch.cat([tokens[:, : self._prefix], patches], dim=1)


def drawn_prompts(info: BackboneInfo, *shape: int) -> nn.Parameter:
    """Prompts (..., D) as the authors draw them, whatever shape is in front of D."""
    bound = math.sqrt(6 / (3 * info.patch**2 + info.width))
    return nn.Parameter(nn.init.uniform_(torch.empty(*shape, info.width), -bound, bound))


def drawn_head(width: int, num_classes: int) -> nn.Linear:
    """The authors' head: prompts are moved by what comes through it, fifty times as much as through a ViT's own."""
    head = nn.Linear(width, num_classes)
    nn.init.kaiming_normal_(head.weight, mode="fan_out")
    return head
