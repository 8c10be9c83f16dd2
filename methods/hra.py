"""HRA: weights turned by a chain of Householder reflections, by peft."""

from __future__ import annotations

import peft
from pydantic import Field

from petlbench import MethodCard
from petlbench.methods._peft import PeftMethod, TargetSettings

__all__ = ["HRA", "HRASettings"]


class HRASettings(TargetSettings):
    """Settings of HRA; peft's defaults."""

    rank: int = Field(
        8,
        ge=2,
        le=1024,
        multiple_of=2,
        description="number r of reflections; even, as they start in pairs that cancel",
        json_schema_extra={"search": [4, 8, 16]},
    )
    orthogonalise: bool = Field(False, description="make the reflections' vectors orthogonal (Gram-Schmidt)")


class HRA(PeftMethod[HRASettings]):
    """Multiplies W by r reflections I - 2 u uᵀ with u of length one (HRA).

    Each two neighbours start equal, so their product is the identity and the output is the backbone's up to rounding.
    """

    card = MethodCard(
        name="hra",
        title="HRA",
        family="orthogonal",
        year=2024,
        paper="https://arxiv.org/abs/2405.17484",
        summary="Learns a chain of Householder reflections that turns the weights' input space.",
    )
    Settings = HRASettings

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Reflections as set."""
        return peft.HRAConfig(r=self.settings.rank, apply_GS=self.settings.orthogonalise, target_modules=names)
