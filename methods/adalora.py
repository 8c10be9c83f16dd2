"""AdaLoRA: low-rank updates whose rank is allotted to the layers that need it, by peft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import peft
import torch
from pydantic import Field
from torch import Tensor

from petlbench import BackboneInfo, Companion, MethodCard, TrainingDefaults
from petlbench.methods._peft import PeftMethod, TargetSettings

__all__ = ["AdaLoRA", "AdaLoRASettings", "RankAllocation"]


class AdaLoRASettings(TargetSettings):
    """Ranks, alpha, weight and smoothing are peft's defaults, the phases about those of the paper's GLUE runs."""

    initial_rank: int = Field(12, ge=2, le=1024, description="rank of each update at the start")
    target_rank: int = Field(
        8, ge=1, le=1024, description="mean rank at the end; below the first", json_schema_extra={"search": [2, 4, 8]}
    )
    alpha: float = Field(8.0, gt=0, description="the update is scaled by alpha / initial rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the update's input")
    orthogonality: float = Field(0.5, ge=0, le=100, description="weight of the penalty on P and Q")
    warmup_share: float = Field(0.1, ge=0, le=0.9, description="share of the steps before ranks are cut")
    final_share: float = Field(0.5, ge=0, le=0.9, description="share of the steps after ranks are settled")
    interval: int = Field(1, ge=1, le=10_000, description="steps from one cut to the next")
    smoothing: float = Field(0.85, gt=0, lt=1, description="decay of the averages of sensitivity and of uncertainty")


class AdaLoRA(PeftMethod[AdaLoRASettings]):
    """Adds P Λ Q with Λ diagonal and cuts the least important of its entries while training (AdaLoRA, algorithm 1).

    The count is that of the initial ranks: an entry that is cut stays a tensor's element and is held at zero.
    """

    card = MethodCard(
        name="adalora",
        title="AdaLoRA",
        family="low-rank",
        year=2023,
        paper="https://arxiv.org/abs/2303.10512",
        summary="Learns low-rank updates and allots the ranks to the layers by importance.",
    )
    Settings = AdaLoRASettings
    defaults = TrainingDefaults(lr=1e-3)

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs ranks and steps that leave something to cut."""
        settings = self.settings
        if settings.target_rank >= settings.initial_rank:
            return f"target_rank {settings.target_rank} is not below initial_rank {settings.initial_rank}"
        if settings.warmup_share + settings.final_share >= 1:
            return "warmup_share and final_share leave no steps in which ranks are cut"
        return super().refuse(backbone)

    def config(self, names: list[str]) -> peft.PeftConfig:
        """The schedule wants the number of steps here, where it is not known yet; the companion puts it right."""
        return peft.AdaLoraConfig(
            init_r=self.settings.initial_rank,
            target_r=self.settings.target_rank,
            lora_alpha=self.settings.alpha,
            lora_dropout=self.settings.dropout,
            deltaT=self.settings.interval,
            beta1=self.settings.smoothing,
            beta2=self.settings.smoothing,
            total_step=1,
            target_modules=names,
        )

    def companion(self, tuner: Any) -> Companion:
        """The penalty and the allocation."""
        return RankAllocation(tuner, self.settings)


class RankAllocation:
    """Penalises factors that are not orthogonal and cuts ranks behind every step, by peft's allocator.

    Args:
        tuner: peft's ``AdaLoraModel``.
        settings: The method's settings.
    """

    def __init__(self, tuner: Any, settings: AdaLoRASettings) -> None:
        self._tuner, self._settings = tuner, settings
        self._config, self._allocator = tuner.peft_config["default"], tuner.rankallocator

    def penalty(self) -> Tensor:
        """Mean of ‖PᵀP - I‖ and ‖Q Qᵀ - I‖ over all layers, times its weight.

        That is AdaLoRA, eq. 4, as the authors' code has it: Frobenius norms that are not squared, and their mean.
        """
        norms = []
        for name, factor in self._tuner.model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                gram = factor @ factor.T if ".lora_A." in name else factor.T @ factor
                identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
                norms.append(torch.linalg.matrix_norm(gram - identity))
        return self._settings.orthogonality * torch.stack(norms).mean()

    def after_step(self, step: int, steps: int) -> None:
        """Update the importances and cut ranks (AdaLoRA, eqs. 8 to 12; cubic schedule)."""
        config = self._config
        config.total_step = steps
        config.tinit = round(self._settings.warmup_share * steps)
        config.tfinal = round(self._settings.final_share * steps)
        # Ranks are settled at this step by importances of earlier ones, so there has to be one.
        if steps - config.tfinal >= 2:
            self._tuner.update_and_allocate(step)

    def state_dict(self) -> dict[str, Tensor]:
        """The smoothed importances and uncertainties, and which ranks were left by the last cut."""
        pattern = self._config.rank_pattern or {}
        return {
            **{f"importance/{name}": tensor for name, tensor in self._allocator.exp_avg_ipt.items()},
            **{f"uncertainty/{name}": tensor for name, tensor in self._allocator.exp_avg_unc.items()},
            **{f"left/{name}": torch.tensor(kept, dtype=torch.bool, device="cpu") for name, kept in pattern.items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` gave, where the parameters are."""
        parameters = dict(self._tuner.model.named_parameters())
        allocator = self._allocator
        allocator.reset_ipt()
        self._config.rank_pattern = None
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            if kind == "left":
                self._config.rank_pattern = {**(self._config.rank_pattern or {}), name: tensor.tolist()}
                continue
            kept = allocator.exp_avg_ipt if kind == "importance" else allocator.exp_avg_unc
            kept[name] = tensor.to(parameters[name].device)
            # The allocator makes both averages anew where it finds no latest importance; its value is not read.
            allocator.ipt[name] = torch.zeros_like(parameters[name])
