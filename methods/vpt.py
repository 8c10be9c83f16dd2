"""Visual prompt tuning: learned tokens beside those of the image."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from petlbench import Adapted, Backbone, BackboneInfo, Method, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._prompts import Prompted, drawn_head, drawn_prompts

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
        info, settings = backbone.info, self.settings
        backbone.expect_prefix_tokens(settings.num_tokens)
        layers = info.blocks if settings.depth == "deep" else 1
        prompts = drawn_prompts(info, layers, settings.num_tokens)
        module = Prompted(backbone, prompts, drawn_head(info.feature_width, num_classes), settings.dropout)
        return Adapted(module, frozenset({"prompts", "head.weight", "head.bias"}))
