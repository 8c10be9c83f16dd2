"""(IA)³: learned factors on keys, values and the MLP's hidden channels, by peft."""

from __future__ import annotations

from typing import Literal

import peft
from pydantic import Field

from petlbench import MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._peft import PeftMethod

__all__ = ["IA3", "IA3Settings"]


class IA3Settings(MethodSettings):
    """Which activations are scaled; the default is the paper's."""

    targets: Literal["k,v,fc2", "k,v", "q,k,v,proj,fc2"] = Field(
        "k,v,fc2", description="layers whose outputs are scaled, one factor a channel; of fc2 the inputs are"
    )


class IA3(PeftMethod[IA3Settings]):
    """Multiplies keys, values and the MLP's hidden channels by learned vectors that start at one (section 3.3)."""

    card = MethodCard(
        name="ia3",
        title="(IA)³",
        family="scaling",
        year=2022,
        paper="https://arxiv.org/abs/2205.05638",
        summary="Learns factors on keys, values and the MLP's hidden channels.",
    )
    Settings = IA3Settings
    # The paper's rate.
    defaults = TrainingDefaults(lr=3e-3, decay="matrices", published_rates=(3e-3,))

    def config(self, names: list[str]) -> peft.PeftConfig:
        """The inputs are scaled of the MLPs' last layers, the outputs of the others."""
        hidden = [name for name in names if name.endswith(".fc2")]
        return peft.IA3Config(target_modules=names, feedforward_modules=hidden)
