"""BEFT: biases added to the value projections, by peft."""

from __future__ import annotations

from typing import Literal

import peft
from pydantic import Field

from petlbench import LinearShape, MethodCard, MethodSettings
from petlbench.methods._peft import PeftMethod

__all__ = ["BEFT", "BEFTSettings"]


class BEFTSettings(MethodSettings):
    """Which biases are learned; the default is the paper's choice."""

    targets: Literal["v", "q", "q,v"] = Field("v", description="projections whose outputs get a bias of their own")


class BEFT(PeftMethod[BEFTSettings]):
    """Adds a learned vector, zero at the start, to the values of every block (BEFT)."""

    card = MethodCard(
        name="beft",
        title="BEFT",
        family="partial",
        year=2025,
        paper="https://arxiv.org/abs/2509.15974",
        summary="Learns a bias of the value projections.",
    )
    Settings = BEFTSettings

    def misfit(self, target: LinearShape) -> str | None:
        """What is learned is a change of a bias that is there."""
        return None if target.bias else "a target has no bias"

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Vectors on the targets."""
        return peft.BeftConfig(target_modules=names)
