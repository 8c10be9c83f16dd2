"""Attention tuning: the attention layers are learned, the rest of the backbone is frozen."""

from __future__ import annotations

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

__all__ = ["AttentionTuning"]


class AttentionTuning(Method[MethodSettings]):
    """Learns weights and biases of every query, key, value and output projection, and a linear head."""

    card = MethodCard(
        name="attention",
        title="Attention tuning",
        family="partial",
        year=2022,
        paper="https://arxiv.org/abs/2203.09795",
        summary="Learns the attention layers' weights and biases.",
    )
    defaults = TrainingDefaults(lr=1e-4, lr_range=(1e-6, 1e-3))
    starts_at_backbone = True

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks with an attention each."""
        return backbone.lacks("blocks")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put a head on the backbone and learn it together with the attention layers."""
        module = Classifier(backbone, num_classes)
        names = (name for name, _ in module.named_parameters())
        learnable = frozenset(name for name in names if ".attn." in name or name.startswith("head."))
        return Adapted(module, learnable, merge=nothing_to_merge)
