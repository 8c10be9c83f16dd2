"""RepAdapter: linear adapters in front of attention and MLP, folded into the layers behind them."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from petlbench import Adapted, Backbone, BackboneInfo, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._branches import fold_in_front, learned_names, takes_constants

__all__ = ["RepAdapter", "RepAdapterSettings"]


class RepAdapterSettings(MethodSettings):
    """Settings of the adapters."""

    bottleneck: int = Field(
        8, ge=1, le=4096, description="width of an adapter's middle, h", json_schema_extra={"search": [4, 8, 16, 32]}
    )
    groups: int = Field(
        2, ge=1, le=64, description="groups of the second layer; each reads and writes its own share of the channels"
    )
    placement: Literal["attention_mlp", "attention"] = Field(
        "attention_mlp", description="in front of attention and MLP, or of the attention alone"
    )
    scale: float = Field(
        1.0,
        gt=0,
        le=100,
        description="factor on what an adapter adds; the authors search it for every dataset",
        json_schema_extra={"search": [0.1, 0.5, 1, 5, 10]},
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on an adapter's middle")


class RepAdapter(Method[RepAdapterSettings]):
    """Puts x + s · up(down(x)) between norm and attention, and between norm and MLP.

    ``down`` is dense and ``up`` has groups. There is no activation, so both fold into the layers that read the result
    (RepAdapter, structural re-parameterisation). ``up`` is zero at the start, so the frozen backbone is the start. The
    count that the paper prints leaves the adapters' biases out. Where windows are padded, the adapter stands behind
    the padding.

    Folding needs a bias in every layer that takes it up; the keys of EVA have none, so there it stays as it is.
    """

    card = MethodCard(
        name="repadapter",
        title="RepAdapter",
        family="adapter",
        year=2023,
        paper="https://arxiv.org/abs/2302.08106",
        summary="Learns linear bottleneck networks in front of the attention and the MLP of every block.",
    )
    Settings = RepAdapterSettings
    defaults = TrainingDefaults(lr=1e-3, weight_decay=1e-4)
    starts_at_backbone = True

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks, and widths that the groups divide."""
        if lacking := backbone.lacks("blocks"):
            return lacking
        groups, bottleneck = self.settings.groups, self.settings.bottleneck
        for size, what in ((bottleneck, "a bottleneck"), (min(backbone.widths), f"{backbone.name}'s width")):
            if size % groups:
                return f"{what} of {size} cannot be shared by {groups} groups"
        return None

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put adapters in front of the parts of every block and a head on the backbone."""
        parts = ("attn", "mlp") if self.settings.placement == "attention_mlp" else ("attn",)
        can_be_folded = takes_constants(backbone, *parts)
        for block, width in zip(backbone.blocks(), backbone.info.widths, strict=True):
            for part in parts:
                setattr(block, part, _InFront(_Linear(width, self.settings), getattr(block, part)))
        module = Classifier(backbone, num_classes)
        merge = (lambda: _merge(backbone, parts)) if can_be_folded else None
        return Adapted(module, learned_names(module, ".adapter."), merge=merge)


class _Linear(nn.Module):
    """An adapter: x + s · up(dropout(down(x))), where ``up`` has groups.

    Args:
        width: Channels of a token, D.
        settings: The method's settings; h is the bottleneck and G the number of groups.
    """

    def __init__(self, width: int, settings: RepAdapterSettings) -> None:
        super().__init__()
        groups = settings.groups
        self.down = nn.Linear(width, settings.bottleneck)
        # Group g maps its h / G channels to its D / G: (G, D / G, h / G).
        self.up = nn.Parameter(torch.zeros(groups, width // groups, settings.bottleneck // groups))
        self.bias = nn.Parameter(torch.zeros(width))
        self.dropout, self.scale = nn.Dropout(settings.dropout), settings.scale
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D) to those that the layer behind reads, (B, N, D)."""
        middle = torch.unflatten(self.dropout(self.down(x)), -1, (len(self.up), -1))
        change = torch.einsum("...gh,gdh->...gd", middle, self.up).flatten(-2) + self.bias
        return x + self.scale * change

    @torch.no_grad()
    def change(self) -> tuple[Tensor, Tensor]:
        """M (D, D) and c (D) of the M x + c that is added to tokens x outside training."""
        groups = len(self.up)
        change = torch.bmm(self.up, self.down.weight.view(groups, -1, self.down.in_features)).flatten(0, 1)
        constant = torch.bmm(self.up, self.down.bias.view(groups, -1, 1)).flatten() + self.bias
        return self.scale * change, self.scale * constant


class _InFront(nn.Module):
    """A layer with an adapter on its input."""

    def __init__(self, adapter: _Linear, inner: nn.Module) -> None:
        super().__init__()
        self.adapter, self.inner = adapter, inner

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return cast("Tensor", self.inner(self.adapter(x), *args, **kwargs))


def _merge(backbone: Backbone, parts: tuple[str, ...]) -> None:
    for block in backbone.blocks():
        for part in parts:
            wrapped: _InFront = getattr(block, part)
            fold_in_front(wrapped.inner, *wrapped.adapter.change())
            setattr(block, part, wrapped.inner)
