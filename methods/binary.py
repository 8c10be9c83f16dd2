"""Bi-LoRA and Bi-AdaptFormer: low-rank updates and adapters whose weights have one bit each."""

from __future__ import annotations

from typing import ClassVar, cast

from pydantic import Field
from torch import Tensor, nn

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    Classifier,
    Method,
    MethodCard,
    MethodSettings,
    TrainingDefaults,
)
from petlbench.methods._branches import BesideMLP, learned_names, norms_elsewhere
from petlbench.methods._layers import OwnLayerMethod, UpdatedLinear
from petlbench.methods._peft import Targets

__all__ = ["BiAdaptFormer", "BiAdaptFormerSettings", "BiLoRA", "BiLoRASettings", "OneBitLinear"]

_LEVEL = 0.6744897365570068
"""Upper quartile of the standard normal distribution, rounded to single precision as in the authors' code.

It is the median of each half, which is all that one bit tells apart.
"""


class BiAdaptFormerSettings(MethodSettings):
    """Settings of the adapters; the defaults are those of the authors' code."""

    bottleneck: int = Field(
        32, ge=1, le=4096, description="width of an adapter's middle", json_schema_extra={"search": [1, 8, 32, 64]}
    )
    scale: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="factor on what an adapter adds; the authors search it for every dataset",
        json_schema_extra={"search": [0.01, 0.1, 1, 10, 100]},
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on an adapter's middle")


class BiLoRASettings(MethodSettings):
    """Settings of the updates; the defaults are those of the authors' code."""

    rank: int = Field(
        32, ge=1, le=1024, description="rank r of each update", json_schema_extra={"search": [1, 8, 32, 64]}
    )
    scale: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="factor on an update; the authors search it for every dataset",
        json_schema_extra={"search": [0.01, 0.1, 1, 10, 100]},
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on an update's middle")
    targets: Targets = Field("q,v", description="which linear layers of a block are updated")


# The rate, the decay and the epochs of all of the authors' runs.
_DEFAULTS = TrainingDefaults(lr=1e-3, weight_decay=1e-4, published_rates=(1e-3,))


class OneBitLinear(nn.Linear):
    """A linear map without bias that multiplies by weights of one bit (Binary Adapter, section 3.3).

    With mean m and deviation s of the weights, it multiplies by m ± 0.674 s, whose sign is that of weight - m: each
    half of a normal distribution is told by its median. Gradients pass the rounding as if there were none.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def rounded(self) -> Tensor:
        """The weights that are multiplied by, (O, I)."""
        mean, deviation = self.weight.mean(), self.weight.std()
        normal = (self.weight - mean) / (deviation + 1e-5)
        bits = normal + (_LEVEL * normal.sign() - normal).detach()
        return bits * deviation + mean

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, I) to (B, N, O)."""
        return nn.functional.linear(x, self.rounded())


def _start_near_zero(up: nn.Linear) -> None:
    """Draw the last weights as the authors do: rounded ones cannot all be zero."""
    nn.init.trunc_normal_(up.weight, std=0.001, a=-0.002, b=0.002)


class BiAdaptFormer(Method[BiAdaptFormerSettings]):
    """Adds s · up(ReLU(down(x))) beside the MLP, where both maps have one bit a weight and no bias.

    x is the sum behind the attention, not normed. The start is near the frozen backbone and not at it.
    Counts are of numbers that are learned; stored with one bit each they take a 32nd of their room.
    """

    card = MethodCard(
        name="bi_adaptformer",
        title="Bi-AdaptFormer",
        family="adapter",
        year=2023,
        paper="https://arxiv.org/abs/2307.16867",
        summary="Learns bottleneck networks beside the MLP of every block whose weights have one bit each.",
    )
    Settings = BiAdaptFormerSettings
    defaults = _DEFAULTS

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks with a norm in front of the MLP and a residual sum behind it."""
        return norms_elsewhere(backbone)

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put an adapter beside every MLP and a head on the backbone."""
        for block, width in zip(backbone.blocks(), backbone.info.widths, strict=True):
            BesideMLP.put_in(block, _OneBitAdapter(width, self.settings))
        module = Classifier(backbone, num_classes)
        return Adapted(module, learned_names(module, ".adapter."))


class _OneBitAdapter(nn.Module):
    def __init__(self, width: int, settings: BiAdaptFormerSettings) -> None:
        super().__init__()
        self.down, self.up = OneBitLinear(width, settings.bottleneck), OneBitLinear(settings.bottleneck, width)
        self.dropout, self.scale = nn.Dropout(settings.dropout), settings.scale
        _start_near_zero(self.up)

    def forward(self, x: Tensor) -> Tensor:
        middle = self.dropout(nn.functional.relu(self.down(x)))
        return self.scale * cast("Tensor", self.up(middle))


class BiLoRA(OwnLayerMethod[BiLoRASettings]):
    """Adds s · B A to frozen projections, where A and B have one bit a weight.

    The start is near the frozen backbone and not at it. Counts are of numbers that are learned; stored with one bit
    each they take a 32nd of their room.
    """

    card = MethodCard(
        name="bi_lora",
        title="Bi-LoRA",
        family="low-rank",
        year=2023,
        paper="https://arxiv.org/abs/2307.16867",
        summary="Learns low-rank updates of the query and value projections whose weights have one bit each.",
    )
    Settings = BiLoRASettings
    defaults = _DEFAULTS
    starts_at_backbone = False

    def layer(self, base: nn.Linear) -> UpdatedLinear:
        """The layer around a target."""
        return _OneBitUpdate(base, self.settings)


class _OneBitUpdate(UpdatedLinear):
    adapter_layer_names: ClassVar[tuple[str, ...]] = ("down", "up")

    def __init__(self, base: nn.Linear, settings: BiLoRASettings) -> None:
        super().__init__(base)
        self.down = OneBitLinear(base.in_features, settings.rank)
        self.up = OneBitLinear(settings.rank, base.out_features)
        self.dropout, self.scale = nn.Dropout(settings.dropout), settings.scale
        _start_near_zero(self.up)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.base(x) + self.scale * self.up(self.dropout(self.down(x))))

    def update(self) -> tuple[Tensor, Tensor | None]:
        return self.scale * self.up.rounded() @ self.down.rounded(), None
