"""Norm tuning: scale and shift of every layer norm are learned."""

from __future__ import annotations

from torch import nn

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

__all__ = ["NormTuning"]


class NormTuning(Method[MethodSettings]):
    """Learns weight and bias of every layer norm, the final one included, and a linear head (LN-Tune)."""

    card = MethodCard(
        name="norm",
        title="LN-Tune",
        family="partial",
        year=2024,
        paper="https://arxiv.org/abs/2304.01917",
        summary="Learns scale and shift of the layer norms.",
    )
    defaults = TrainingDefaults(lr=1e-3)
    starts_at_backbone = True

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks, which have a norm each."""
        return backbone.lacks("blocks")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put a head on the backbone and learn it together with the layer norms."""
        module = Classifier(backbone, num_classes)
        learnable = {"head.weight", "head.bias"}
        for name, layer in module.named_modules():
            if isinstance(layer, nn.LayerNorm):
                learnable |= {f"{name}.{part}" for part, _ in layer.named_parameters()}
        return Adapted(module, frozenset(learnable), merge=nothing_to_merge)
