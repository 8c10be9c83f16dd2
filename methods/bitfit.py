"""BitFit: the biases are learned, the weights are frozen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from petlbench import Adapted, Backbone, BackboneInfo, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults

__all__ = ["BitFit", "BitFitSettings"]


class BitFitSettings(MethodSettings):
    """Which biases are learned."""

    which: Literal["all", "blocks", "query_mlp"] = Field(
        "all",
        description="every bias of the backbone, those of its blocks, or the paper's smaller choice: those of the "
        "queries and of the MLPs' first layers",
    )


class BitFit(Method[BitFitSettings]):
    """Learns bias vectors and a linear head (BitFit, section 3; the smaller choice is its b_q and b_m2)."""

    card = MethodCard(
        name="bitfit",
        title="BitFit",
        family="partial",
        year=2022,
        paper="https://arxiv.org/abs/2106.10199",
        summary="Learns the bias vectors.",
    )
    Settings = BitFitSettings
    defaults = TrainingDefaults(lr=1e-3)
    starts_at_backbone = True

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks; for the queries' biases alone, a fused layer that can be taken apart."""
        if self.settings.which == "query_mlp":
            return backbone.lacks("blocks", "qkv")
        return backbone.lacks_either("blocks", "stages")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put a head on the backbone and learn it together with the chosen biases."""
        if self.settings.which == "query_mlp":
            backbone.split_qkv()
        module = Classifier(backbone, num_classes)
        names = (name for name, _ in module.named_parameters())
        blocks = tuple(f"backbone.{name}." for name in backbone.block_names())
        learnable = frozenset(name for name in names if self._is_learned(name, blocks))
        return Adapted(module, learnable, merge=backbone.fuse_qkv)

    def _is_learned(self, name: str, blocks: tuple[str, ...]) -> bool:
        if name.startswith("head."):
            return True
        if self.settings.which == "query_mlp":
            return name.endswith((".qkv.q.bias", ".q_proj.bias", ".mlp.fc1.bias", ".mlp.fc1_g.bias", ".mlp.fc1_x.bias"))
        # EVA keeps the biases of its queries and values beside the layer.
        return name.endswith((".bias", "_bias")) and (self.settings.which == "all" or name.startswith(blocks))
