"""RoAd: outputs of linear layers turned and stretched in pairs of channels, by peft."""

from __future__ import annotations

from typing import Literal

import peft
from pydantic import Field

from petlbench import LinearShape, MethodCard, TrainingDefaults
from petlbench.methods._peft import PeftMethod, TargetSettings, cannot_cut

__all__ = ["RoAd", "RoAdSettings"]


class RoAdSettings(TargetSettings):
    """Settings of RoAd; peft's defaults, but that groups of its 64 channels do not suit every usual width."""

    variant: Literal["1", "2", "4"] = Field(
        "1",
        description="angles and lengths that each pair of channels has of its own",
        json_schema_extra={"search": ["1", "2", "4"]},
    )
    group_size: int = Field(
        32, ge=2, le=4096, multiple_of=2, description="channels whose first half is paired with the second"
    )


class RoAd(PeftMethod[RoAdSettings]):
    """Multiplies a layer's output by 2 x 2 matrices alpha · (cos, -sin; sin, cos) (RoAd, eq. 4).

    Angles start at zero and lengths at one. In the variants 2 and 4 the rows, or all four entries, have their own.
    """

    card = MethodCard(
        name="road",
        title="RoAd",
        family="orthogonal",
        year=2024,
        paper="https://arxiv.org/abs/2409.00119",
        summary="Learns rotations and lengths of pairs of output channels.",
    )
    Settings = RoAdSettings
    defaults = TrainingDefaults(lr=1e-3, decay="matrices")

    def misfit(self, target: LinearShape) -> str | None:
        """The output channels are cut into groups."""
        return cannot_cut(target.out_features, "groups", self.settings.group_size)

    def config(self, names: list[str]) -> peft.PeftConfig:
        """Variant and groups as set."""
        variant = f"road_{self.settings.variant}"
        return peft.RoadConfig(variant=variant, group_size=self.settings.group_size, target_modules=names)
