"""HiRA: the weights multiplied, entry by entry, by a low-rank matrix, by peft."""

from __future__ import annotations

import peft
from pydantic import Field

from petlbench import MethodCard
from petlbench.methods._peft import PeftMethod, TargetSettings

__all__ = ["HiRA", "HiRASettings"]


class HiRASettings(TargetSettings):
    """Settings of HiRA; peft's defaults."""

    rank: int = Field(32, ge=1, le=1024, description="rank r of B A", json_schema_extra={"search": [8, 16, 32]})
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the update's input")


class HiRA(PeftMethod[HiRASettings]):
    """Adds W ⊙ (B A), whose rank is not bounded by that of B A; B starts at zero (HiRA)."""

    card = MethodCard(
        name="hira",
        title="HiRA",
        family="low-rank",
        year=2025,
        paper="https://openreview.net/forum?id=TwJrTz9cRS",
        summary="Learns a low-rank matrix that the weights are multiplied by, entry by entry.",
    )
    Settings = HiRASettings

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Rank as set."""
        return peft.HiraConfig(r=self.settings.rank, hira_dropout=self.settings.dropout, target_modules=names)
