"""PSOFT: a rotation inside the leading singular subspace of the weights, by peft."""

from __future__ import annotations

import peft
from pydantic import Field

from petlbench import LinearShape, MethodCard, TrainingDefaults
from petlbench.methods._peft import PeftMethod, TargetSettings, too_large

__all__ = ["PSOFT", "PSOFTSettings"]


class PSOFTSettings(TargetSettings):
    """Settings of PSOFT; peft's defaults, where alpha = rank."""

    rank: int = Field(
        32,
        ge=2,
        le=1024,
        description="leading singular directions that turn",
        json_schema_extra={"search": [16, 32, 64]},
    )
    magnitudes: bool = Field(True, description="learn a length for each direction in front of and behind the rotation")


class PSOFT(PeftMethod[PSOFTSettings]):
    """Adds B (R - I) A with B A the rank-r part of W's singular value decomposition and R orthogonal (PSOFT).

    A and B are computed again, not stored; R is Cayley's transform of r (r - 1) / 2 angles, which start at zero.
    """

    card = MethodCard(
        name="psoft",
        title="PSOFT",
        family="orthogonal",
        year=2026,
        paper="https://openreview.net/forum?id=FSHrinMArK",
        summary="Learns a rotation inside the leading singular subspace of the query and value projections.",
    )
    Settings = PSOFTSettings
    defaults = TrainingDefaults(lr=1e-3, decay="matrices")

    def misfit(self, target: LinearShape) -> str | None:
        """A matrix has no more singular values than rows or columns."""
        return too_large("rank", self.settings.rank, min(target.in_features, target.out_features))

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Rank and lengths as set; the full decomposition, which draws no random numbers."""
        return peft.PsoftConfig(
            r=self.settings.rank,
            psoft_alpha=self.settings.rank,
            psoft_mag_a=self.settings.magnitudes,
            psoft_mag_b=self.settings.magnitudes,
            target_modules=names,
        )
