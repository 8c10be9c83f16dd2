"""DiffFit: biases, norms, and a factor on every channel of what attention and MLP add."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from petlbench import Adapted, Backbone, BackboneInfo, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._branches import norms_elsewhere

__all__ = ["DiffFit"]


class DiffFit(Method[MethodSettings]):
    """Learns every bias, every norm, and γ in x + γ · f(x) for the attention and the MLP of every block (DiffFit).

    γ has a number a channel and is one at the start, so the frozen backbone is the start. It was made for diffusion
    transformers; on classifiers it stands in comparisons of vision transformers in this form.
    """

    card = MethodCard(
        name="difffit",
        title="DiffFit",
        family="partial",
        year=2023,
        paper="https://arxiv.org/abs/2304.06648",
        summary="Learns biases, norms, and a factor on every channel that attention and MLP add.",
    )
    defaults = TrainingDefaults(lr=1e-3, decay="matrices", lr_range=(1e-4, 1e-1))
    starts_at_backbone = True

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks that add their attention and their MLP to the tokens one after the other."""
        return norms_elsewhere(backbone)

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put a factor at the end of both branches of every block, and a head on the backbone."""
        for block, width in zip(backbone.blocks(), backbone.info.widths, strict=True):
            module: Any = block
            module.drop_path1, module.drop_path2 = _Factor(module.drop_path1, width), _Factor(module.drop_path2, width)
        module = Classifier(backbone, num_classes)
        norms = tuple(f"{name}." for name, layer in module.named_modules() if isinstance(layer, nn.LayerNorm))
        names = (name for name, _ in module.named_parameters())
        # EVA keeps the biases of its queries and values beside the layer.
        ends = (".factor", ".bias", "_bias")
        return Adapted(module, frozenset(n for n in names if n.startswith(("head.", *norms)) or n.endswith(ends)))


class _Factor(nn.Module):
    """The end of a branch, and a factor on each of its channels."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.factor = inner, nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.inner(x)) * self.factor
