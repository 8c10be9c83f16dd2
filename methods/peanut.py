"""PEANuT: updates that small networks compute from the weights, by peft."""

from __future__ import annotations

import peft
from pydantic import Field

from petlbench import MethodCard
from petlbench.methods._peft import PeftMethod, TargetSettings

__all__ = ["PEANuT", "PEANuTSettings"]


class PEANuTSettings(TargetSettings):
    """Settings of PEANuT; peft's defaults."""

    rank: int = Field(
        32, ge=1, le=1024, description="width r of a network's middle", json_schema_extra={"search": [8, 16, 32]}
    )
    depth: int = Field(0, ge=0, le=8, description="hidden layers r -> r on each side of the middle")
    scale: float = Field(1.0, gt=0, le=100, description="factor on the update")


class PEANuT(PeftMethod[PEANuTSettings]):
    """Adds s · B ReLU(A W), a network of the frozen weights themselves; B starts at zero (PEANuT)."""

    card = MethodCard(
        name="peanut",
        title="PEANuT",
        family="low-rank",
        year=2024,
        paper="https://arxiv.org/abs/2410.01870",
        summary="Learns a small network a layer that computes an update from the frozen weights.",
    )
    Settings = PEANuTSettings

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Width, depth and scale as set."""
        return peft.PeanutConfig(
            r=self.settings.rank, depth=self.settings.depth, scaling=self.settings.scale, target_modules=names
        )
