"""LoHa and LoKr of LyCORIS: updates made of an elementwise or a Kronecker product, by peft."""

from __future__ import annotations

from typing import TypeVar

import peft
from pydantic import Field
from torch import nn

from petlbench import Backbone, Companion, MethodCard, MethodSettings
from petlbench.methods._peft import PeftMethod, TargetSettings

__all__ = ["LoHa", "LoHaSettings", "LoKr", "LoKrSettings"]


class LoHaSettings(TargetSettings):
    """Settings of LoHa; peft's defaults."""

    rank: int = Field(
        8, ge=1, le=1024, description="rank r of each of the two factors", json_schema_extra={"search": [2, 4, 8, 16]}
    )
    alpha: float | None = Field(None, gt=0, description="the update is scaled by alpha / rank; none for alpha = rank")


class LoKrSettings(TargetSettings):
    """Settings of LoKr; peft's defaults."""

    rank: int = Field(
        8,
        ge=1,
        le=1024,
        description="rank r of the larger factor, which is a full matrix when that is smaller",
        json_schema_extra={"search": [2, 4, 8, 16]},
    )
    alpha: float | None = Field(None, gt=0, description="the update is scaled by alpha / rank; none for alpha = rank")


S = TypeVar("S", bound=MethodSettings)


class _Lycoris(PeftMethod[S]):
    """Keeps peft's layers from asking chance, on the host, whether to drop out."""

    def wrap(self, backbone: Backbone, names: list[str]) -> Companion | None:
        """Inject the layers and run them in evaluation mode, which is the same without dropout."""
        companion = super().wrap(backbone, names)
        for name in names:
            backbone.module.get_submodule(name).register_forward_pre_hook(_evaluate)
        return companion


class LoHa(_Lycoris[LoHaSettings]):
    """Adds (B₁ A₁) ⊙ (B₂ A₂), whose rank can reach r² (FedPara, proposition 1).

    It starts as in LyCORIS: A₁ and A₂ from N(0, 1), B₁ from N(0, 0.1²), B₂ at zero. peft's own start, He's, is so small
    that the update grows a hundred times more slowly.
    """

    card = MethodCard(
        name="loha",
        title="LoHa",
        family="low-rank",
        year=2022,
        paper="https://arxiv.org/abs/2108.06098",
        summary="Learns an update that is the elementwise product of two low-rank matrices.",
    )
    Settings = LoHaSettings

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Rank and scale as set."""
        rank, alpha = self.settings.rank, self.settings.alpha or self.settings.rank
        return peft.LoHaConfig(r=rank, alpha=alpha, target_modules=names)

    def wrap(self, backbone: Backbone, names: list[str]) -> Companion | None:
        """Inject the layers and draw their factors anew."""
        companion = super().wrap(backbone, names)
        for layer in map(backbone.module.get_submodule, names):
            for factor, deviation in {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_a": 0.0, "hada_w2_b": 1.0}.items():
                nn.init.normal_(layer.get_parameter(f"{factor}.default"), std=deviation)
        return companion


class LoKr(_Lycoris[LoKrSettings]):
    """Adds the Kronecker product C ⊗ (B A), cut where a width's divisors are nearest to its root (LyCORIS).

    C starts at zero.
    """

    card = MethodCard(
        name="lokr",
        title="LoKr",
        family="low-rank",
        year=2024,
        paper="https://arxiv.org/abs/2309.14859",
        summary="Learns an update that is the Kronecker product of a small and a low-rank matrix.",
    )
    Settings = LoKrSettings

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Rank and scale as set."""
        rank, alpha = self.settings.rank, self.settings.alpha or self.settings.rank
        return peft.LoKrConfig(r=rank, alpha=alpha, target_modules=names)


def _evaluate(layer: nn.Module, _inputs: object) -> None:
    layer.eval()
