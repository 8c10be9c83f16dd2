"""AdaptFormer: a bottleneck network beside the MLP of every block of a frozen backbone."""

from __future__ import annotations

import math
from typing import Literal, cast

from pydantic import Field
from torch import Tensor, nn

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    Classifier,
    Inputs,
    Method,
    MethodCard,
    MethodSettings,
    TrainingDefaults,
)
from petlbench.methods._branches import BesideMLP, learned_names, norms_elsewhere

__all__ = ["AdaptFormer", "AdaptFormerSettings"]


class AdaptFormerSettings(MethodSettings):
    """Settings of the adapters; the defaults are those of the authors' code."""

    bottleneck: int = Field(
        64, ge=1, le=4096, description="width of an adapter's middle", json_schema_extra={"search": [1, 4, 8, 16, 64]}
    )
    scale: float = Field(
        0.1,
        gt=0,
        le=100,
        description="factor on what an adapter adds",
        json_schema_extra={"search": [0.01, 0.05, 0.1, 0.2]},
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on an adapter's middle")
    layer_norm: Literal["none", "in"] = Field(
        "none",
        description="a learned layer norm in front of every adapter (in), as the paper's equation has it, or none, as "
        "in the authors' runs",
    )
    batch_norm: bool = Field(
        False,
        description="a batch norm without learned parameters in front of the head, as in the authors' runs; its mean "
        "and variance are kept with what is learned",
    )


class AdaptFormer(Method[AdaptFormerSettings]):
    """Adds s · up(ReLU(down(x))) beside the MLP, where x is the sum behind the attention (AdaptFormer, AdaptMLP).

    The adapter reads x as it is, not normed: the paper's equation norms it, the authors' runs do not. What it adds goes
    to the residual sum directly, past layer scale and drop path. ``up`` and the biases are zero at the start, so
    the frozen backbone is the start.
    """

    card = MethodCard(
        name="adaptformer",
        title="AdaptFormer",
        family="adapter",
        year=2022,
        paper="https://arxiv.org/abs/2205.13535",
        summary="Learns bottleneck networks beside the MLP of every block.",
    )
    Settings = AdaptFormerSettings
    # The authors train by SGD; this is the rate of the other adapters here.
    defaults = TrainingDefaults(lr=1e-3)
    starts_at_backbone = True

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks with a norm in front of the MLP and a residual sum behind it."""
        return norms_elsewhere(backbone)

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put an adapter beside every MLP and a head on the backbone."""
        for block, width in zip(backbone.blocks(), backbone.info.widths, strict=True):
            BesideMLP.put_in(block, _Parallel(width, self.settings))
        if not self.settings.batch_norm:
            module = Classifier(backbone, num_classes)
            return Adapted(module, learned_names(module, ".adapter."))
        module = _NormedClassifier(backbone, num_classes)
        statistics = frozenset(f"batch_norm.{name}" for name, _ in module.batch_norm.named_buffers())
        return Adapted(module, learned_names(module, ".adapter."), chosen=statistics)


class _Parallel(nn.Module):
    """An adapter: s · up(dropout(ReLU(down(x)))).

    Args:
        width: Channels of a token, D.
        settings: The method's settings.
    """

    def __init__(self, width: int, settings: AdaptFormerSettings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if settings.layer_norm == "in" else nn.Identity()
        self.down, self.up = nn.Linear(width, settings.bottleneck), nn.Linear(settings.bottleneck, width)
        self.dropout, self.scale = nn.Dropout(settings.dropout), settings.scale
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D) to what is added to them, (B, N, D)."""
        middle = self.dropout(nn.functional.relu(self.down(self.norm(x))))
        return self.scale * cast("Tensor", self.up(middle))


class _NormedClassifier(Classifier):
    """A classifier that norms the final feature over the batch in front of its head, by eps 1e-6 as the authors do."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__(backbone, num_classes)
        self.batch_norm = nn.BatchNorm1d(backbone.info.feature_width, affine=False, eps=1e-6)
        self.batch_norm.num_batches_tracked = None  # it counts for averages of another kind

    def forward(self, inputs: Inputs) -> Tensor:
        feature = self._pooled(inputs.views["fine"])
        if self.training and feature.shape[0] == 1:  # an image alone has no variance: it is normed as in evaluation
            norm = self.batch_norm
            normed = nn.functional.batch_norm(feature, norm.running_mean, norm.running_var, eps=norm.eps)
        else:
            normed = self.batch_norm(feature)
        return cast("Tensor", self.head(normed))
