"""MiSS: one small matrix shared by all slices of a layer's input, by peft."""

from __future__ import annotations

import peft
from pydantic import Field

from petlbench import LinearShape, MethodCard
from petlbench.methods._peft import PeftMethod, TargetSettings, too_large

__all__ = ["MiSS", "MiSSSettings"]


class MiSSSettings(TargetSettings):
    """Settings of MiSS. The rank learns as much as LoRA's of half the size; peft's, 64, is made for wider models."""

    rank: int = Field(
        32, ge=1, le=4096, description="width r of a slice of the input", json_schema_extra={"search": [16, 32, 64]}
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the update's input")


class MiSS(PeftMethod[MiSSSettings]):
    """Adds the same r x D_out matrix, zero at the start, to every slice of r columns of W (MiSS).

    Where r does not divide the width, the last slice is a shorter one.
    """

    card = MethodCard(
        name="miss",
        title="MiSS",
        family="low-rank",
        year=2024,
        paper="https://arxiv.org/abs/2409.15371",
        summary="Learns one matrix a layer that all slices of its input share.",
    )
    Settings = MiSSSettings

    def misfit(self, target: LinearShape) -> str | None:
        """A slice is no wider than the input."""
        return too_large("rank", self.settings.rank, target.in_features)

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Width of a slice as set."""
        return peft.MissConfig(r=self.settings.rank, miss_dropout=self.settings.dropout, target_modules=names)
