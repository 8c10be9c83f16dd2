"""RLRR: every weight matrix is rescaled by a learned row and a learned column, beside the frozen one."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from petlbench import Adapted, Backbone, BackboneInfo, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._branches import learned_names
from petlbench.methods._layers import ScaledAndShifted, UpdatedLinear

__all__ = ["RLRR"]


class RLRR(Method[MethodSettings]):
    """Gives (W + l ∘ W ∘ r) x + b + f for every linear layer W, b of the blocks (RLRR, eq. 8).

    l has a number a row, r one a column and f one a row. What the patch embedding and the norms give is scaled and
    shifted as SSF does. As in the authors' code, l and r are drawn and f is zero, so the start is near the frozen
    backbone and not at it. All of it can be folded into the layers.
    """

    card = MethodCard(
        name="rlrr",
        title="RLRR",
        family="scaling",
        year=2024,
        paper="https://arxiv.org/abs/2403.19067",
        summary="Learns a scale of every row and every column of each weight matrix, and a shift.",
    )
    # The authors' rate and decay on VTAB-1k.
    defaults = TrainingDefaults(lr=3e-3, weight_decay=5e-5, published_rates=(3e-3,))

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs an attention that calls its layers rather than reading their weights, and plain MLPs."""
        return backbone.lacks("blocks", "qkv", "plain_mlp")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Wrap every layer that has weights and put a head on the backbone."""
        backbone.split_qkv()
        linears = {name for block in backbone.linears("q", "k", "v", "proj", "fc1", "fc2") for name in block}
        layers = [(n, m) for n, m in backbone.module.named_modules() if n in linears or _is_scaled(m)]
        wrapped = {name: _Rescaled(cast("Any", m)) if name in linears else ScaledAndShifted(m) for name, m in layers}
        for name, layer in wrapped.items():
            backbone.replace(name, layer)
        module = Classifier(backbone, num_classes)
        learned = learned_names(module, ".scale", ".shift", ".rows", ".columns")
        return Adapted(module, learned, merge=lambda: _merge(backbone, wrapped))


class _Rescaled(UpdatedLinear):
    """A linear layer whose matrix is rescaled beside itself."""

    adapter_layer_names: ClassVar[tuple[str, ...]] = ("rows", "columns", "shift")

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.rows = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(base.out_features, 1)))
        self.columns = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(1, base.in_features)))
        self.shift = nn.Parameter(torch.zeros(base.out_features))

    def forward(self, x: Tensor) -> Tensor:
        # The same as a product with the rescaled matrix, which would be as large as the frozen one in every layer.
        rescaled = nn.functional.linear(x * self.columns[0], self.base.weight) * self.rows[:, 0]
        return cast("Tensor", self.base(x) + rescaled + self.shift)

    def update(self) -> tuple[Tensor, Tensor | None]:
        return self.rows * self.base.weight * self.columns, self.shift


def _is_scaled(layer: nn.Module) -> bool:
    """Whether a layer is a norm or the patch embedding."""
    return isinstance(layer, nn.LayerNorm | nn.Conv2d)


def _merge(backbone: Backbone, wrapped: dict[str, Any]) -> None:
    for name, layer in wrapped.items():
        if isinstance(layer, _Rescaled):
            layer.merge()
            backbone.replace(name, layer.get_base_layer())
        else:
            backbone.replace(name, layer.merged())
    backbone.fuse_qkv()
