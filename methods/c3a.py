"""C3A: updates made of circulant blocks, by peft."""

from __future__ import annotations

import math
from typing import cast

import peft
from pydantic import Field
from torch import nn

from petlbench import Backbone, Companion, MethodCard
from petlbench.methods._peft import PeftMethod, TargetSettings

__all__ = ["C3A", "C3ASettings"]


class C3ASettings(TargetSettings):
    """The paper's settings for ViT-B, whose blocks are a twelfth of the width."""

    block_size: int = Field(
        64,
        ge=1,
        le=8192,
        description="width b of a circulant block, or its largest divisor that suits all targets; larger learns less",
        json_schema_extra={"search": [32, 64, 192]},
    )


class C3A(PeftMethod[C3ASettings]):
    """Adds a matrix of circulant blocks, each given by one kernel of b values and applied by Fourier transform (C3A).

    The kernels start at small uniform values (Xavier), as in the paper, so the start is near the frozen backbone only.
    """

    card = MethodCard(
        name="c3a",
        title="C3A",
        family="spectral",
        year=2025,
        paper="https://arxiv.org/abs/2407.19342",
        summary="Learns the kernels of circular convolutions that are added to the projections.",
    )
    Settings = C3ASettings
    starts_at_backbone = False

    def wrap(self, backbone: Backbone, names: list[str]) -> Companion | None:
        """Inject the layers, with the largest blocks that suit all targets."""
        config = self.config(names)
        targets = [cast("nn.Linear", backbone.module.get_submodule(name)) for name in names]
        sides = [side for target in targets for side in (target.in_features, target.out_features)]
        config.block_size = math.gcd(config.block_size, *sides)
        self.inject(backbone.module, config)
        return None

    def config(self, names: list[str]) -> peft.C3AConfig:
        """Blocks as set."""
        return peft.C3AConfig(block_size=self.settings.block_size, target_modules=names)
