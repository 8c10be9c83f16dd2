"""Visual Fourier prompt tuning: some of the prompts are read through a Fourier transform."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from petlbench import Adapted, Backbone, BackboneInfo, Method, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._prompts import Prompted, drawn_head, drawn_prompts

__all__ = ["VFPT", "VFPTSettings"]

# Prompts are (B, T, D).
_AXES = {"tokens": (-2,), "channels": (-1,), "both": (-2, -1)}


class VFPTSettings(MethodSettings):
    """Settings of the prompts."""

    num_tokens: int = Field(
        16, ge=1, le=1024, description="prompts a block", json_schema_extra={"search": [5, 10, 16, 50, 100]}
    )
    share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of the prompts that are transformed, rounded down to whole ones",
        json_schema_extra={"search": [0.3, 0.5, 0.7, 1.0]},
    )
    axes: Literal["both", "tokens", "channels"] = Field(
        "both", description="what the transform goes along: the prompts of a block, the channels of each, or both"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the prompts, in front of the transform")


class VFPT(Method[VFPTSettings]):
    """Gives each block the prompts Re F(P') beside P'', where P' is a share of its learned prompts (VFPT, section 3.2).

    F is the discrete Fourier transform, not normalised. Without the transform this is VPT with prompts for every block,
    head and start included.
    """

    card = MethodCard(
        name="vfpt",
        title="VFPT",
        family="prompt",
        year=2024,
        paper="https://arxiv.org/abs/2411.01327",
        summary="Learns prompt tokens of which every block reads some through a Fourier transform.",
    )
    Settings = VFPTSettings
    # The ranges of VPT, from which the authors' scripts take theirs.
    defaults = TrainingDefaults(lr=1e-3, lr_range=(1e-4, 1e-1), sgd_lr_range=(0.05, 50))

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs plain blocks, which take any number of tokens, and a share that makes one prompt at least."""
        if not self._transformed:
            return f"a share of {self.settings.share:g} of num_tokens={self.settings.num_tokens} prompts makes none"
        return backbone.lacks("isotropic")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Make the prompts and a head."""
        info, settings = backbone.info, self.settings
        backbone.expect_prefix_tokens(settings.num_tokens)
        prompts = drawn_prompts(info, info.blocks, settings.num_tokens)
        head = drawn_head(info.feature_width, num_classes)
        module = _FourierPrompted(backbone, prompts, head, settings, self._transformed)
        return Adapted(module, frozenset({"prompts", "head.weight", "head.bias"}))

    @property
    def _transformed(self) -> int:
        return int(self.settings.num_tokens * self.settings.share)


class _FourierPrompted(Prompted):
    """A frozen backbone whose blocks read the first prompts transformed."""

    def __init__(
        self, backbone: Backbone, prompts: nn.Parameter, head: nn.Linear, settings: VFPTSettings, count: int
    ) -> None:
        super().__init__(backbone, prompts, head, settings.dropout)
        self._axes, self._count = _AXES[settings.axes], count

    def transformed(self, prompts: Tensor) -> Tensor:
        """The prompts (B, T, D), the first of them transformed."""
        spectrum = torch.fft.fftn(prompts[:, : self._count], dim=self._axes).real
        return torch.cat([spectrum, prompts[:, self._count :]], dim=1)
