"""DeLoRA: low-rank updates whose norm is learned apart from their directions, by peft."""

from __future__ import annotations

import peft
from pydantic import Field

from petlbench import MethodCard, TrainingDefaults
from petlbench.methods._peft import PeftMethod, TargetSettings

__all__ = ["DeLoRA", "DeLoRASettings"]


class DeLoRASettings(TargetSettings):
    """Settings of DeLoRA; peft's defaults."""

    rank: int = Field(8, ge=1, le=1024, description="rank r of each update", json_schema_extra={"search": [4, 8, 16]})
    bound: float = Field(15.0, gt=0, le=1000, description="start of the learned bound lambda on an update's norm")


class DeLoRA(PeftMethod[DeLoRASettings]):
    """Adds lambda / r · sum of b aᵀ / (‖b‖ ‖a‖), times the norms of W's columns as they were (DeLoRA).

    B starts at zero, and norms below 1e-4 count as that.
    """

    card = MethodCard(
        name="delora",
        title="DeLoRA",
        family="low-rank",
        year=2025,
        paper="https://arxiv.org/abs/2503.18225",
        summary="Learns directions of a low-rank update and one bound on its norm.",
    )
    Settings = DeLoRASettings
    defaults = TrainingDefaults(lr=1e-3, decay="matrices")

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Rank and bound as set."""
        return peft.DeloraConfig(r=self.settings.rank, delora_lambda=self.settings.bound, target_modules=names)
