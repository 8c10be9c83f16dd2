"""Adapters: small bottleneck networks inside every block of a frozen backbone."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import Field
from torch import Tensor, nn

from petlbench import Adapted, Backbone, BackboneInfo, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults
from petlbench.methods._branches import Activation, Behind, Bottleneck, learned_names

__all__ = ["Adapter", "AdapterSettings"]


class AdapterSettings(MethodSettings):
    """Settings of the adapters."""

    bottleneck: int = Field(
        48, ge=1, le=4096, description="width of an adapter's middle", json_schema_extra={"search": [8, 16, 48, 64]}
    )
    placement: Literal["houlsby", "pfeiffer", "parallel"] = Field(
        "houlsby", description="behind attention and MLP, behind the MLP alone, or beside the MLP"
    )
    scale: float = Field(
        1.0, gt=0, le=100, description="factor on what an adapter adds", json_schema_extra={"search": [0.1, 1]}
    )
    activation: Activation = Field(
        "gelu", description="in an adapter's middle; without any it is linear and can be merged behind a layer"
    )


class Adapter(Method[AdapterSettings]):
    """Adds s · up(act(down(x))) inside every block; ``up`` is zero at the start, so the frozen backbone is the start.

    ``houlsby`` puts one behind the attention and one behind the MLP, in front of their residual additions (Houlsby et
    al., section 2.1); ``pfeiffer`` keeps the second alone; ``parallel`` gives it the MLP's input (He et al., 2022).
    All of them stand in front of layer scale. A linear adapter behind a layer can be folded into its last weights.
    """

    card = MethodCard(
        name="adapter",
        title="Adapter",
        family="adapter",
        year=2019,
        paper="https://arxiv.org/abs/1902.00751",
        summary="Learns bottleneck networks behind the attention and the MLP of every block.",
    )
    Settings = AdapterSettings
    defaults = TrainingDefaults(lr=1e-3)
    starts_at_backbone = True

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs plain blocks, whose attention and MLP can be wrapped."""
        return backbone.lacks("blocks")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Wrap the parts of every block and put a head on the backbone."""
        can_be_folded = self._can_be_folded(backbone)
        for block, width in zip(backbone.blocks(), backbone.info.widths, strict=True):
            for part in self._parts():
                setattr(block, part, self._wrap(getattr(block, part), width))
        module = Classifier(backbone, num_classes)
        merge = (lambda: self._merge(backbone)) if can_be_folded else None
        return Adapted(module, learned_names(module, ".adapter."), merge=merge)

    def _parts(self) -> tuple[str, ...]:
        return ("attn", "mlp") if self.settings.placement == "houlsby" else ("mlp",)

    def _wrap(self, inner: nn.Module, width: int) -> nn.Module:
        settings = self.settings
        adapter = Bottleneck(width, settings.bottleneck, settings.scale, settings.activation)
        return _Beside(inner, adapter) if settings.placement == "parallel" else Behind(inner, adapter)

    def _can_be_folded(self, backbone: Backbone) -> bool:
        if self.settings.activation != "none" or self.settings.placement == "parallel":
            return False
        # Only of blocks whose projections can be adapted is it known which layer comes last.
        return "qkv" in backbone.info.capabilities and all(
            _last(getattr(block, part)).bias is not None for block in backbone.blocks() for part in self._parts()
        )

    def _merge(self, backbone: Backbone) -> None:
        for block in backbone.blocks():
            for part in self._parts():
                wrapped: Behind = getattr(block, part)
                wrapped.adapter.fold_into(_last(wrapped.inner))
                setattr(block, part, wrapped.inner)


def _last(part: Any) -> nn.Linear:
    """The last layer of an attention or an MLP of timm's."""
    return cast("nn.Linear", part.proj if hasattr(part, "proj") else part.fc2)


class _Beside(Behind):
    """A layer with an adapter on its input."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return cast("Tensor", self.inner(x, *args, **kwargs) + self.adapter(x))
