"""Full fine-tuning: every parameter of the backbone is learned."""

from __future__ import annotations

from petlbench import (
    Adapted,
    Backbone,
    Classifier,
    Method,
    MethodCard,
    MethodSettings,
    TrainingDefaults,
    nothing_to_merge,
)

__all__ = ["FullFineTuning"]


class FullFineTuning(Method[MethodSettings]):
    """The reference that every ratio of learnable parameters and of memory is taken against."""

    card = MethodCard(
        name="full",
        title="Full fine-tuning",
        family="reference",
        year=2014,
        paper="https://arxiv.org/abs/1411.1792",
        summary="Learns every parameter of the backbone and a linear head.",
    )
    defaults = TrainingDefaults(lr=1e-4, lr_range=(1e-6, 1e-3))
    starts_at_backbone = True

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put a head on the backbone and learn everything."""
        module = Classifier(backbone, num_classes)
        return Adapted(module, frozenset(name for name, _ in module.named_parameters()), merge=nothing_to_merge)
