"""SSF: every operation's output is scaled and shifted, channel by channel."""

from __future__ import annotations

from torch import nn

from petlbench import Adapted, Backbone, BackboneInfo, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._branches import learned_names
from petlbench.methods._layers import ScaledAndShifted

__all__ = ["SSF"]


class SSF(Method[MethodSettings]):
    """Puts y = γ · x + β behind every layer that has weights, and can fold it into them (SSF, its re-parameterisation).

    These layers are the patch embedding, every layer norm and every linear layer; activation, layer scale and residual
    sum come behind. γ is drawn from N(1, 0.02) and β from N(0, 0.02), as in the authors' code, so the start is near the
    frozen backbone and not at it. Swin's patch merging is scaled and shifted behind its norm alone, as there. A layer
    without a bias, such as EVA's for the keys, is scaled and not shifted: it has nothing to fold a shift into.
    """

    card = MethodCard(
        name="ssf",
        title="SSF",
        family="scaling",
        year=2022,
        paper="https://arxiv.org/abs/2210.08823",
        summary="Learns a scale and a shift of every channel behind every norm, linear layer and patch embedding.",
    )
    # The rate of ten of the authors' 19 tasks of VTAB-1k, and their decay, which spares all that is no matrix.
    defaults = TrainingDefaults(
        lr=5e-3, weight_decay=5e-2, decay="matrices", lr_range=(1e-4, 1e-1), published_rates=(2e-4, 5e-2)
    )

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs an attention that calls its layers rather than reading their weights."""
        return backbone.lacks("blocks", "qkv") if backbone.lacks("norms_apart") else None

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Wrap every layer that has weights and put a head on the backbone."""
        if any(hasattr(getattr(block, "attn", None), "q_proj") for block in backbone.blocks()):
            # EVA reads its fused layer's weight and adds biases of its own; it calls the three layers.
            backbone.split_qkv()
        wrapped = {name: ScaledAndShifted(layer) for name, layer in _layers(backbone.module)}
        for name, layer in wrapped.items():
            backbone.replace(name, layer)
        module = Classifier(backbone, num_classes)
        return Adapted(module, learned_names(module, ".scale", ".shift"), merge=lambda: _merge(backbone, wrapped))


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name every layer that has weights, except Swin's reductions, which stand right behind a norm."""
    return [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(getattr(layer, "weight", None), nn.Parameter) and not name.endswith("downsample.reduction")
    ]


def _merge(backbone: Backbone, wrapped: dict[str, ScaledAndShifted]) -> None:
    for name, layer in wrapped.items():
        backbone.replace(name, layer.merged())
    backbone.fuse_qkv()
