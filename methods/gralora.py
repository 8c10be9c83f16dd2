"""GraLoRA: low-rank updates of the blocks of a matrix, by peft."""

from __future__ import annotations

import peft
from pydantic import Field

from petlbench import BackboneInfo, LinearShape, MethodCard
from petlbench.methods._peft import PeftMethod, TargetSettings

__all__ = ["GraLoRA", "GraLoRASettings"]


class GraLoRASettings(TargetSettings):
    """Settings of GraLoRA; peft's defaults."""

    rank: int = Field(
        32,
        ge=1,
        le=1024,
        description="rank r, shared by the blocks in a row",
        json_schema_extra={"search": [8, 16, 32]},
    )
    blocks: int = Field(
        2, ge=1, le=64, description="number k of blocks on each side", json_schema_extra={"search": [2, 4]}
    )
    alpha: float | None = Field(None, gt=0, description="the update is scaled by alpha / rank; none for alpha = 2 rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the update's input")


class GraLoRA(PeftMethod[GraLoRASettings]):
    """Gives each of the k x k blocks of a matrix its own update of rank r / k, at LoRA's count (GraLoRA)."""

    card = MethodCard(
        name="gralora",
        title="GraLoRA",
        family="low-rank",
        year=2025,
        paper="https://arxiv.org/abs/2505.20355",
        summary="Learns a low-rank update of each block of the query and value projections.",
    )
    Settings = GraLoRASettings

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """The rank is shared equally by the blocks."""
        if self.settings.rank % self.settings.blocks:
            return f"rank {self.settings.rank} cannot be shared by {self.settings.blocks} blocks"
        return super().refuse(backbone)

    def misfit(self, target: LinearShape) -> str | None:
        """Both sides are cut into k blocks."""
        blocks = self.settings.blocks
        width = next((width for width in (target.in_features, target.out_features) if width % blocks), None)
        return f"{width} channels of a target cannot be cut into {blocks} blocks" if width is not None else None

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Rank, blocks and scale as set."""
        return peft.GraloraConfig(
            r=self.settings.rank,
            gralora_k=self.settings.blocks,
            alpha=self.settings.alpha or 2 * self.settings.rank,
            gralora_dropout=self.settings.dropout,
            target_modules=names,
        )
