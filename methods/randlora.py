"""RandLoRA: full-rank updates by learned scales of fixed random low-rank matrices, by peft."""

from __future__ import annotations

import peft
import torch
from pydantic import Field

from petlbench import Backbone, Companion, LinearShape, MethodCard
from petlbench.methods._peft import PeftMethod, TargetSettings, too_large

__all__ = ["RandLoRA", "RandLoRASettings"]


class RandLoRASettings(TargetSettings):
    """Settings of RandLoRA; peft's defaults, where alpha is 20 times the rank."""

    rank: int = Field(
        32,
        ge=1,
        le=1024,
        description="rank r of a random matrix; smaller ranks take more of them and learn more",
        json_schema_extra={"search": [8, 16, 32]},
    )
    alpha: float | None = Field(
        None, gt=0, description="the update is scaled by alpha / rank; none for alpha = 20 rank"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the update's input")
    projection_seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of the random matrices, one for all runs")


class RandLoRA(PeftMethod[RandLoRASettings]):
    """Adds the sum over N = D / r bases of B_n Λ_n A Γ_n, A and B_n random and shared by all layers (RandLoRA).

    The diagonals Λ_n start at zero.
    """

    card = MethodCard(
        name="randlora",
        title="RandLoRA",
        family="low-rank",
        year=2025,
        paper="https://arxiv.org/abs/2502.00987",
        summary="Learns diagonal scales that combine fixed random low-rank matrices to a full-rank update.",
    )
    Settings = RandLoRASettings

    def wrap(self, backbone: Backbone, names: list[str]) -> Companion | None:
        """Inject the layers and draw what they share, A (r, 1, D) and B (D, N, r), of variance one.

        peft draws them in the half precision that the machine has, so that another machine would get other values.
        """
        tuner = self.inject(backbone.module, self.config(names))
        generator = torch.Generator("cpu").manual_seed(self.settings.projection_seed)
        for shared in (tuner.randlora_A, tuner.randlora_B):
            (name, before), *_ = shared.items()
            drawn = torch.empty(before.shape).uniform_(-1, 1, generator=generator)
            shared[name] = (drawn / drawn.std()).to(before.device)
        return None

    def misfit(self, target: LinearShape) -> str | None:
        """A basis has no higher rank than the target."""
        return too_large("rank", self.settings.rank, min(target.in_features, target.out_features))

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Rank, scale and projections as set."""
        return peft.RandLoraConfig(
            r=self.settings.rank,
            randlora_alpha=self.settings.alpha or 20 * self.settings.rank,
            randlora_dropout=self.settings.dropout,
            projection_prng_key=self.settings.projection_seed,
            target_modules=names,
        )
