"""Visual query tuning: learned queries ask every block of a frozen backbone, and the head reads the answers."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from petlbench import Adapted, Backbone, BackboneInfo, Inputs, Method, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._prompts import drawn_head, drawn_prompts

__all__ = ["VQT", "VQTSettings"]


class VQTSettings(MethodSettings):
    """Settings of the queries; the authors take 1, 10 or 20, by dataset."""

    num_tokens: int = Field(1, ge=1, le=1024, description="queries a block", json_schema_extra={"search": [1, 10, 20]})
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the queries")


class VQT(Method[VQTSettings]):
    """Puts queries of their own beside each block's, which its tokens do not see (VQT, section 3.2).

    What becomes of the queries behind a block is not handed on to the next one, so the tokens stay those of the frozen
    backbone and no gradient passes through them. The head reads the final feature and all that became of the queries,
    each block's scaled to length one; in front of that its weights have a deviation of sqrt(2 / C), as in VPT.
    """

    card = MethodCard(
        name="vqt",
        title="VQT",
        family="prompt",
        year=2023,
        paper="https://arxiv.org/abs/2212.03220",
        summary="Learns queries that ask every frozen block, and a head that reads the answers.",
    )
    Settings = VQTSettings
    # The authors try 0.05 to 1 for 256 images with Adam, scaled to a batch of 128.
    defaults = TrainingDefaults(lr=0.05, lr_range=(1e-3, 0.5), sgd_lr_range=(0.05, 50), published_rates=(0.025, 0.5))

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks of one width whose keys and values queries can ask."""
        return backbone.lacks("isotropic", "keys_values")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Make the queries and a head."""
        module = _Queried(backbone, num_classes, self.settings)
        return Adapted(module, frozenset({"queries", "head.weight", "head.bias"}))


class _Queried(nn.Module):
    """A frozen backbone and queries that ask its blocks."""

    def __init__(self, backbone: Backbone, num_classes: int, settings: VQTSettings) -> None:
        super().__init__()
        info = backbone.info
        self._states, self._answers, self._pooled = backbone.states, backbone.answers, backbone.pooled_from
        self.backbone = backbone.module
        self.queries = drawn_prompts(info, info.blocks, settings.num_tokens)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = drawn_head(info.feature_width + info.blocks * settings.num_tokens * info.width, num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        """Map the fine view (B, 3, H, W) to logits (B, C)."""
        states, answers = self._states(inputs.views["fine"]), []
        for layer, queries in enumerate(self.queries):
            with torch.no_grad():
                tokens = next(states)
            answers.append(self._answers(layer, self.dropout(queries.expand(len(tokens), -1, -1)), tokens).flatten(1))
        with torch.no_grad():
            final = self._pooled(next(states))
        read = [nn.functional.normalize(feature, dim=1) for feature in (final, *answers)]
        return cast("Tensor", self.head(torch.cat(read, dim=1)))
