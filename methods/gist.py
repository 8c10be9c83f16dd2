"""GIST: adapters, and one more token that learns the task beside the class token and agrees with it."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    Inputs,
    Method,
    MethodCard,
    MethodSettings,
    TaskLoss,
    TrainingDefaults,
    new_head,
)
from petlbench.methods._branches import BesideAttention, BesideMLP, Bottleneck, learned_names, norms_elsewhere

__all__ = ["GIST", "GISTSettings"]


class GISTSettings(MethodSettings):
    """Settings of the adapters, the token and the loss; the defaults are the authors'."""

    bottleneck: int = Field(
        4, ge=1, le=4096, description="width of an adapter's middle", json_schema_extra={"search": [4, 8, 16, 32]}
    )
    scale: float = Field(
        0.1, gt=0, le=100, description="factor on what an adapter adds", json_schema_extra={"search": [0.1, 1]}
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the Gist token")
    gist_weight: float = Field(0.5, ge=0, le=100, description="weight of the task's loss of the Gist token's logits")
    interaction_weight: float = Field(
        0.75, ge=0, le=100, description="weight of the divergence of the two tokens' predictions, in each direction"
    )
    temperature: float = Field(3.0, gt=0, le=100, description="divides the logits whose predictions are compared")


class GIST(Method[GISTSettings]):
    """Learns adapters and a Gist token, by a loss in which token and final feature learn from each other (GIST).

    The token is put behind the class token in front of the first block. The head reads it behind the last one as it
    reads the backbone's feature: for the loss CE(y) + a CE(g) + b (KL(y || g) + KL(g || y)) of the logits y of the
    feature and g of the token, where the divergences are of softmaxes of y / T and g / T. Predictions are y alone.
    A block has one adapter, which reads what attention and MLP read in front of their norms and adds to what both add.
    As in the authors' code it is drawn whole, so the start is near the frozen backbone and not at it.
    """

    card = MethodCard(
        name="gist",
        title="GIST",
        family="adapter",
        year=2024,
        paper="https://arxiv.org/abs/2312.07255",
        summary="Learns adapters and a token that is classified too and agrees with the backbone's feature.",
    )
    Settings = GISTSettings
    # What most of the authors' 19 scripts have.
    defaults = TrainingDefaults(lr=5e-3, weight_decay=5e-5, lr_range=(1e-5, 5e-2), published_rates=(1e-3, 5e-2))

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs any number of tokens, and a norm in front of attention and MLP."""
        return backbone.lacks("isotropic") or norms_elsewhere(backbone)

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put an adapter into every block, and make the token and a head."""
        backbone.expect_prefix_tokens(1)
        for block in backbone.blocks():
            adapter = Bottleneck(backbone.info.width, self.settings.bottleneck, self.settings.scale)
            nn.init.trunc_normal_(adapter.up.weight, std=0.02)
            BesideAttention.put_in(block, adapter)
            BesideMLP.put_in(block, adapter)
        module = _Interacting(backbone, num_classes, self.settings)
        return Adapted(module, learned_names(module, ".adapter.") | {"gist"}, loss=module.loss)


class _Interacting(nn.Module):
    """A backbone with one more token."""

    def __init__(self, backbone: Backbone, num_classes: int, settings: GISTSettings) -> None:
        super().__init__()
        info = backbone.info
        self._run, self._pooled, self._prefix = backbone.pooled_through, backbone.pooled_from, info.prefix_tokens
        self._settings = settings
        self.backbone = backbone.module
        self.gist = nn.Parameter(nn.init.uniform_(torch.empty(1, info.width), -0.5, 0.5))
        self.dropout = nn.Dropout(settings.dropout)
        self.head = new_head(info.feature_width, num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        """Map the fine view (B, 3, H, W) to logits (B, C)."""
        logits, _ = self._classified(inputs)
        return logits

    def loss(self, inputs: Inputs, task_loss: TaskLoss) -> Tensor:
        """What is minimised of the fine view (B, 3, H, W), a scalar."""
        logits, token = self._classified(inputs)
        # However the backbone pools, tokens that are all the same give it.
        gist = self.head(self._pooled(token.expand(-1, self._prefix + 1, -1)))
        settings = self._settings
        wide = torch.promote_types(logits.dtype, torch.float32)
        first, second = (F.log_softmax(each.to(wide) / settings.temperature, dim=-1) for each in (logits, gist))
        # Both divergences in one sum.
        divergence = (first.exp() - second.exp()) * (first - second)
        interaction = settings.interaction_weight * divergence.sum(dim=-1).mean()
        return task_loss(logits) + settings.gist_weight * task_loss(gist) + interaction

    def _classified(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The logits (B, C) of the final feature, and the Gist token behind the last block, (B, 1, D)."""
        tokens: list[Tensor] = []

        def leave(last: Tensor) -> Tensor:
            tokens.append(last[:, self._prefix : self._prefix + 1])
            return torch.cat([last[:, : self._prefix], last[:, self._prefix + 1 :]], dim=1)

        feature = self._run(inputs.views["fine"], self._with_gist, leave)
        return cast("Tensor", self.head(feature)), tokens[0]

    def _with_gist(self, layer: int, tokens: Tensor) -> Tensor:
        if layer > 0:
            return tokens
        gist = self.dropout(self.gist.expand(len(tokens), -1, -1)).to(tokens.dtype)
        return torch.cat([tokens[:, : self._prefix], gist, tokens[:, self._prefix :]], dim=1)
