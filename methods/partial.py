"""Partial fine-tuning: the last blocks and the final norm are learned."""

from __future__ import annotations

from pydantic import Field

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    Classifier,
    Method,
    MethodCard,
    MethodSettings,
    TrainingDefaults,
    nothing_to_merge,
)

__all__ = ["PartialSettings", "PartialTuning"]

# Where timm keeps the norm behind the last block: in front of the pooling or behind it.
_FINAL_NORMS = ("backbone.norm.", "backbone.fc_norm.")


class PartialSettings(MethodSettings):
    """How much is learned."""

    num_blocks: int = Field(1, ge=1, le=1000, description="last blocks that are learned, k")


class PartialTuning(Method[PartialSettings]):
    """Learns the last k blocks, the norm behind them and a linear head (Partial-k of VPT, section 4.1).

    The paper names the last layers alone; its results were made with the final norm learned too.
    """

    card = MethodCard(
        name="partial",
        title="Partial-k",
        family="partial",
        year=2022,
        paper="https://arxiv.org/abs/2203.12119",
        summary="Learns the last blocks and the final norm.",
    )
    Settings = PartialSettings
    # Pre-trained weights move, as in full fine-tuning.
    defaults = TrainingDefaults(lr=1e-4, lr_range=(1e-6, 1e-3))
    starts_at_backbone = True

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs as many blocks as are to be learned."""
        if lacking := backbone.lacks("blocks"):
            return lacking
        if self.settings.num_blocks > backbone.blocks:
            return f"{self.settings.num_blocks} blocks are to be learned, but {backbone.name} has {backbone.blocks}"
        return None

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put a head on the backbone and learn it together with what comes last."""
        module = Classifier(backbone, num_classes)
        last = tuple(f"backbone.{name}." for name in backbone.block_names()[-self.settings.num_blocks :])
        names = (name for name, _ in module.named_parameters())
        learnable = frozenset(name for name in names if name.startswith((*last, *_FINAL_NORMS, "head.")))
        return Adapted(module, learnable, merge=nothing_to_merge)
