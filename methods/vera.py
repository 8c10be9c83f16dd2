"""VeRA and PVeRA: vectors that scale fixed random projections which all layers share, by peft."""

from __future__ import annotations

import peft
from pydantic import Field

from petlbench import MethodCard, TrainingDefaults
from petlbench.methods._peft import PeftMethod, TargetSettings

__all__ = ["PVeRA", "VeRA", "VeRASettings"]


class VeRASettings(TargetSettings):
    """The paper's settings for ViT-B."""

    rank: int = Field(
        256, ge=1, le=4096, description="rows of the shared projection A", json_schema_extra={"search": [64, 256, 1024]}
    )
    initial: float = Field(0.1, gt=0, le=10, description="what the entries of d start at")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the update's input")
    projection_seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of the projections, one for all runs")


class VeRA(PeftMethod[VeRASettings]):
    """Adds diag(b) B diag(d) A, with A and B random and one pair for all layers; b starts at zero (VeRA, eq. 2)."""

    card = MethodCard(
        name="vera",
        title="VeRA",
        family="low-rank",
        year=2024,
        paper="https://arxiv.org/abs/2310.11454",
        summary="Learns two scaling vectors a layer around random projections that all layers share.",
    )
    Settings = VeRASettings
    # Vectors on small projections need larger steps than LoRA's matrices; the paper's rates for GLUE are about these.
    defaults = TrainingDefaults(lr=5e-3, decay="matrices")

    def config(self, names: list[str]) -> peft.PeftConfig:
        """The projections are as large as the largest target; smaller targets use a part of them."""
        return peft.VeraConfig(
            r=self.settings.rank,
            d_initial=self.settings.initial,
            vera_dropout=self.settings.dropout,
            projection_prng_key=self.settings.projection_seed,
            target_modules=names,
        )


class PVeRA(PeftMethod[VeRASettings]):
    """VeRA whose projected input is drawn from a Gaussian while training, and is its mean otherwise (PVeRA).

    A has twice the rows: one half gives the means, the other the logarithms of the variances.
    """

    card = MethodCard(
        name="pvera",
        title="PVeRA",
        family="low-rank",
        year=2025,
        paper="https://arxiv.org/abs/2512.07703",
        summary="Learns scaling vectors that give the mean and the variance of a random projection of the input.",
    )
    Settings = VeRASettings
    defaults = TrainingDefaults(lr=5e-3, decay="matrices")

    def config(self, names: list[str]) -> peft.PeftConfig:
        """As for VeRA; the noise comes from torch's generator."""
        return peft.PveraConfig(
            r=self.settings.rank,
            d_initial=self.settings.initial,
            pvera_dropout=self.settings.dropout,
            projection_prng_key=self.settings.projection_seed,
            target_modules=names,
        )
