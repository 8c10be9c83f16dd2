"""LoRA and its close variants rsLoRA, DoRA and PiSSA: low-rank updates of linear layers, by peft."""

from __future__ import annotations

from typing import Any, TypeVar

import peft
import torch
from peft.tuners.lora.dora import DoraLinearLayer
from pydantic import Field
from torch import Tensor

from petlbench import Backbone, Companion, LinearShape, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._peft import PeftMethod, Targets, too_large

__all__ = ["DoRA", "LoRA", "LoRASettings", "PiSSA", "PiSSASettings", "RsLoRA", "RsLoRASettings"]

_RANK = "rank r of each update"
_TARGETS = "which linear layers of a block are updated"
_DROPOUT = "dropout on the update's input"


class LoRASettings(MethodSettings):
    """The paper's settings for attention: rank r on queries and values, scaled by alpha / r."""

    rank: int = Field(16, ge=1, le=1024, description=_RANK, json_schema_extra={"search": [4, 8, 16, 32]})
    alpha: float | None = Field(None, gt=0, description="the update is scaled by alpha / rank; none for alpha = rank")
    dropout: float = Field(0.0, ge=0, lt=1, description=_DROPOUT)
    targets: Targets = Field("q,v", description=_TARGETS)


class RsLoRASettings(LoRASettings):
    """Settings of rsLoRA; alpha = rank is peft's own relation of the two."""

    alpha: float | None = Field(
        None, gt=0, description="the update is scaled by alpha / sqrt(rank); none for alpha = rank"
    )


class PiSSASettings(MethodSettings):
    """Settings of PiSSA. The paper takes alpha = rank, and a dropout on its input would disturb the start."""

    rank: int = Field(
        16, ge=1, le=1024, description="leading singular values that are learned", json_schema_extra={"search": [8, 16]}
    )
    targets: Targets = Field("q,v", description=_TARGETS)


S = TypeVar("S", bound=LoRASettings)


class _LowRank(PeftMethod[S]):
    """Gives peft's config the settings that LoRA and its variants share."""

    rank_stabilised = False
    decomposed = False

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Rank, scale and dropout as set."""
        return peft.LoraConfig(
            r=self.settings.rank,
            lora_alpha=self.settings.alpha or self.settings.rank,
            lora_dropout=self.settings.dropout,
            use_rslora=self.rank_stabilised,
            use_dora=self.decomposed,
            target_modules=names,
        )


class LoRA(_LowRank[LoRASettings]):
    """Adds alpha / r · B A to frozen projections, A Gaussian-like and B zero at the start (LoRA, eq. 3).

    timm fuses queries, keys and values in one layer. A low-rank update of that layer would touch the keys too and
    share one A among all three, which is another method; so the layer is taken apart and each target gets its own.
    """

    card = MethodCard(
        name="lora",
        title="LoRA",
        family="low-rank",
        year=2022,
        paper="https://arxiv.org/abs/2106.09685",
        summary="Learns a low-rank update of the query and value projections.",
    )
    Settings = LoRASettings


class RsLoRA(_LowRank[RsLoRASettings]):
    """LoRA scaled by alpha / sqrt(r) instead of alpha / r, so that a larger rank keeps its effect (rsLoRA)."""

    card = MethodCard(
        name="rslora",
        title="rsLoRA",
        family="low-rank",
        year=2023,
        paper="https://arxiv.org/abs/2312.03732",
        summary="Learns a low-rank update whose scale shrinks with the root of the rank.",
    )
    Settings = RsLoRASettings
    rank_stabilised = True


class DoRA(_LowRank[LoRASettings]):
    """Learns the length m of each output's weights apart from their direction.

    The weights are m · (W + s B A) / ‖W + s B A‖ (DoRA, eq. 5). The norm is over an output's weights and carries no
    gradient (section 4.3); m starts at that of W. An output whose weights are all zero, as behind a pruned head, has
    no direction: it stays zero until it has one.
    """

    card = MethodCard(
        name="dora",
        title="DoRA",
        family="low-rank",
        year=2024,
        paper="https://arxiv.org/abs/2402.09353",
        summary="Learns a low-rank update of the weights' directions, and their lengths.",
    )
    Settings = LoRASettings
    defaults = TrainingDefaults(lr=1e-3, decay="matrices")
    decomposed = True

    def wrap(self, backbone: Backbone, names: list[str]) -> Companion | None:
        """Inject the layers, which divide by no norm of zero from then on."""
        companion = super().wrap(backbone, names)
        for layer in map(backbone.module.get_submodule, names):
            layer.get_submodule("lora_magnitude_vector.default").__class__ = _Lengths
        return companion


class _Lengths(DoraLinearLayer):  # type: ignore[misc, unused-ignore]  # peft is not typed
    """peft's lengths, over norms that are never zero."""

    def get_weight_norm(self, *args: Any, **kwargs: Any) -> Tensor:
        norm: Tensor = super().get_weight_norm(*args, **kwargs)
        return norm.clamp(min=torch.finfo(norm.dtype).tiny)


class PiSSA(PeftMethod[PiSSASettings]):
    """Splits W = U S Vᵀ into B A = U_r S_r V_rᵀ, which is learned, and a frozen rest (PiSSA, eqs. 2 to 4).

    The decomposition is the full one and draws no random numbers, so the rest is the same whenever it is computed again
    from the same weights. At the start the output is the backbone's up to rounding.
    """

    card = MethodCard(
        name="pissa",
        title="PiSSA",
        family="low-rank",
        year=2024,
        paper="https://arxiv.org/abs/2404.02948",
        summary="Learns the leading singular directions of the query and value projections.",
    )
    Settings = PiSSASettings

    def misfit(self, target: LinearShape) -> str | None:
        """A matrix has no more singular values than rows or columns."""
        return too_large("rank", self.settings.rank, min(target.in_features, target.out_features))

    def config(self, names: list[str]) -> peft.PeftConfig:
        """LoRA with the factors taken from the weights."""
        rank = self.settings.rank
        return peft.LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="pissa", target_modules=names)
