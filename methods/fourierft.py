"""FourierFT: updates given by a few coefficients of their spectrum, by peft."""

from __future__ import annotations

from typing import Literal, cast

import peft
from pydantic import Field
from torch import nn

from petlbench import Backbone, Companion, MethodCard, TrainingDefaults
from petlbench.methods._peft import PeftMethod, TargetSettings

__all__ = ["FourierFT", "FourierFTSettings"]


class FourierFTSettings(TargetSettings):
    """The paper's settings for ViT-B, the start excepted."""

    coefficients: int = Field(
        3000,
        ge=1,
        le=10**7,
        description="learned entries n of a spectrum, or all",
        json_schema_extra={"search": [3000, 10000]},
    )
    scale: float = Field(300.0, gt=0, le=10**6, description="factor alpha on the inverse transform")
    # The paper draws them and trains them at a rate of their own, some hundred times the head's. Here both have one
    # rate, at which such a start would stay what it is: noise on the weights.
    initial: Literal["zeros", "normal"] = Field("zeros", description="start of the coefficients; the paper's is normal")
    location_seed: int = Field(
        2024, ge=0, le=2**31 - 1, description="seed of the entries that are learned, the same in every run and layer"
    )


class FourierFT(PeftMethod[FourierFTSettings]):
    """Adds alpha · Re(F⁻¹(spectrum)), n entries of the spectrum learned and the rest zero (FourierFT, eqs. 2 to 4)."""

    card = MethodCard(
        name="fourierft",
        title="FourierFT",
        family="spectral",
        year=2024,
        paper="https://arxiv.org/abs/2405.03003",
        summary="Learns some Fourier coefficients of an update of the query and value projections.",
    )
    Settings = FourierFTSettings
    # A coefficient moves an entry of the update by a fraction of its step.
    defaults = TrainingDefaults(lr=1e-2, lr_range=(1e-4, 1e-1))
    # Not with every setting.
    starts_at_backbone = False

    def wrap(self, backbone: Backbone, names: list[str]) -> Companion | None:
        """Inject the layers; a spectrum has no more entries than the smallest target."""
        config = self.config(names)
        entries = (cast("nn.Linear", backbone.module.get_submodule(name)).weight.numel() for name in names)
        config.n_frequency = min(config.n_frequency, *entries)
        self.inject(backbone.module, config)
        return None

    def config(self, names: list[str]) -> peft.FourierFTConfig:
        """Coefficients, scale and start as set."""
        return peft.FourierFTConfig(
            n_frequency=self.settings.coefficients,
            scaling=self.settings.scale,
            random_loc_seed=self.settings.location_seed,
            init_weights=self.settings.initial == "zeros",
            target_modules=names,
        )
