"""ARC: adapters that all blocks make from the same projections, each with coefficients of its own."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from petlbench import Adapted, Backbone, BackboneInfo, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._branches import fold_in_front, learned_names, norms_elsewhere, takes_constants

__all__ = ["ARC", "ARCSettings"]

_NORMS = {"attn": "norm1", "mlp": "norm2"}
"""The parts of a block, and the norm in front of each."""


class ARCSettings(MethodSettings):
    """Settings of the adapters; the defaults are those of the authors' code."""

    bottleneck: int = Field(
        50,
        ge=1,
        le=4096,
        description="width r of the adapters' middle",
        json_schema_extra={"search": [10, 25, 50, 100]},
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on an adapter's middle")


class ARC(Method[ARCSettings]):
    """Gives x + U diag(c) Uᵀ x + b in front of every attention and MLP (ARC, eq. 6).

    x is what the norm gives. U (D x r) is shared by all blocks, one for the attention and one for the MLP; c (r) and
    b (D) are a block's own. As in the authors' code, c is zero for the attention and drawn for the MLP, so the start
    is near the frozen backbone and not at it. All of it is linear and can be folded into the layers behind.
    """

    card = MethodCard(
        name="arc",
        title="ARC",
        family="adapter",
        year=2023,
        paper="https://arxiv.org/abs/2310.06234",
        summary="Learns projections that the adapters of all blocks share, and coefficients of each.",
    )
    Settings = ARCSettings
    # The authors' rate on VTAB-1k; they decay nothing there.
    defaults = TrainingDefaults(lr=1e-2, weight_decay=0, lr_range=(1e-3, 1e-1), published_rates=(1e-2,))

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks of one width with a norm in front of their attention and MLP."""
        return norms_elsewhere(backbone) or backbone.lacks("isotropic")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put an adapter behind both norms of every block and a head on the backbone."""
        size = (backbone.info.width, self.settings.bottleneck)
        shared = nn.ParameterDict({part: nn.init.xavier_uniform_(torch.empty(size)) for part in _NORMS})
        can_be_folded = takes_constants(backbone, *_NORMS)
        for block in backbone.blocks():
            for part, norm in _NORMS.items():
                setattr(block, norm, _Recomposed(getattr(block, norm), shared, part, self.settings.dropout))
        module = Classifier(backbone, num_classes)
        module.projections = shared
        merge = (lambda: _merge(backbone)) if can_be_folded else None
        return Adapted(module, learned_names(module, "projections.", ".recomposed."), merge=merge)


class _Recomposed(nn.Module):
    """A norm with an adapter behind it.

    Args:
        norm: The frozen norm.
        shared: U (D, r) by part, which all blocks share.
        part: What reads the tokens: ``attn`` or ``mlp``.
        dropout: Dropout on the adapter's middle.
    """

    def __init__(self, norm: nn.Module, shared: nn.ParameterDict, part: str, dropout: float) -> None:
        super().__init__()
        self.norm, self.part, self.dropout = norm, part, nn.Dropout(dropout)
        width, rank = shared[part].shape
        coefficients = torch.zeros(1, rank)
        if part == "mlp":
            nn.init.xavier_uniform_(coefficients)
        self.recomposed = nn.ParameterDict({"coefficients": coefficients, "bias": torch.zeros(width)})
        # In a tuple, so that the projections are the whole module's children and nobody else's.
        self._shared = (shared,)

    def forward(self, x: Tensor) -> Tensor:
        """Norm and adapt tokens, (B, N, D) to (B, N, D)."""
        normed, projection = self.norm(x), self._shared[0][self.part]
        middle = self.dropout(normed @ (projection * self.recomposed["coefficients"]))
        return cast("Tensor", normed + middle @ projection.T + self.recomposed["bias"])

    def fold_into(self, part: nn.Module) -> nn.Module:
        """Fold the adapter into the layers of a part that read it; the frozen norm is returned."""
        projection = self._shared[0][self.part]
        change = (projection * self.recomposed["coefficients"]) @ projection.T
        fold_in_front(part, change.T, self.recomposed["bias"])
        return self.norm


@torch.no_grad()
def _merge(backbone: Backbone) -> None:
    for block in backbone.blocks():
        for part, norm in _NORMS.items():
            setattr(block, norm, getattr(block, norm).fold_into(getattr(block, part)))
