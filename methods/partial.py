"""Tuning of the backbone's own parts: its attention layers, its layer norms, or its last blocks are learned."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TypeVar

from pydantic import Field
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

__all__ = ["AttentionTuning", "NormTuning", "PartialSettings", "PartialTuning"]

# Where timm keeps the norm behind the last block: in front of the pooling or behind it.
_FINAL_NORMS = ("backbone.norm.", "backbone.fc_norm.", "backbone.head.norm.")

S = TypeVar("S", bound=MethodSettings)


class _PartTuning(Method[S]):
    """Learns some of the backbone's own tensors and a linear head."""

    starts_at_backbone = True

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks, which have an attention and norms each."""
        return backbone.lacks("blocks")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put a head on the backbone and learn it together with the part."""
        module = Classifier(backbone, num_classes)
        learnable = frozenset({"head.weight", "head.bias", *self._part(module, backbone)})
        return Adapted(module, learnable, merge=nothing_to_merge)

    @abstractmethod
    def _part(self, module: Classifier, backbone: Backbone) -> Iterable[str]:
        """The names of the module's parameters that are learned beside the head."""


class AttentionTuning(_PartTuning[MethodSettings]):
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

    def _part(self, module: Classifier, backbone: Backbone) -> Iterable[str]:
        return (name for name, _ in module.named_parameters() if ".attn." in name)


class NormTuning(_PartTuning[MethodSettings]):
    """Learns weight and bias of every layer norm, the final one included, and a linear head (LN-Tune)."""

    card = MethodCard(
        name="norm",
        title="LN-Tune",
        family="partial",
        year=2024,
        paper="https://arxiv.org/abs/2304.01917",
        summary="Learns scale and shift of the layer norms.",
    )
    defaults = TrainingDefaults(lr=1e-3, decay="matrices")

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks, or stages of convolutions, whose batch norms count, too."""
        return backbone.lacks_either("blocks", "stages")

    def _part(self, module: Classifier, backbone: Backbone) -> Iterable[str]:
        kinds = (nn.LayerNorm, nn.BatchNorm2d)
        norms = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds)]
        return (f"{name}.{part}" for name, layer in norms for part, _ in layer.named_parameters())


class PartialSettings(MethodSettings):
    """How much is learned."""

    num_blocks: int = Field(1, ge=1, le=1000, description="last blocks that are learned, k")


class PartialTuning(_PartTuning[PartialSettings]):
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

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs as many blocks as are to be learned."""
        if lacking := backbone.lacks_either("blocks", "stages"):
            return lacking
        if self.settings.num_blocks > backbone.blocks:
            return f"{self.settings.num_blocks} blocks are to be learned, but {backbone.name} has {backbone.blocks}"
        return None

    def _part(self, module: Classifier, backbone: Backbone) -> Iterable[str]:
        last = tuple(f"backbone.{name}." for name in backbone.block_names()[-self.settings.num_blocks :])
        return (name for name, _ in module.named_parameters() if name.startswith((*last, *_FINAL_NORMS)))
