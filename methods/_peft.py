"""What methods have in common that put a layer around some of the backbone's linear layers, most of them by peft."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, TypeVar, cast

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from pydantic import Field
from torch import nn

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    Classifier,
    Companion,
    LinearShape,
    Method,
    MethodSettings,
    TrainingDefaults,
)

__all__ = ["LayerMethod", "PeftMethod", "TargetSettings", "Targets", "cannot_cut", "too_large"]

Targets = Literal["q,v", "q,k,v", "q", "v", "q,k,v,proj", "fc1,fc2", "q,k,v,proj,fc1,fc2"]

# The name that peft gives an adapter when it gets none.
_ADAPTER = "default"


class TargetSettings(MethodSettings):
    """Settings of a method that adapts linear layers."""

    targets: Targets = Field("q,v", description="which linear layers of a block are adapted")


S = TypeVar("S", bound=MethodSettings)


class LayerMethod(Method[S]):
    """Puts a layer around each target; what was learned can be folded into the target again.

    A subclass says in `wrap` how the layers get there, and in `misfit` which targets they do not suit.
    """

    defaults: ClassVar[TrainingDefaults] = TrainingDefaults(lr=1e-3)
    starts_at_backbone = True

    @abstractmethod
    def wrap(self, backbone: Backbone, names: list[str]) -> Companion | None:
        """Put a layer in the place of each target, with ``merge`` and ``get_base_layer`` as peft's layers have them.

        As theirs it declares by ``adapter_layer_names`` which of its parameters are learned, or what holds them.
        Whether a tensor requires gradients says nothing: peft lets constants do so where a layer moves.

        Args:
            backbone: The backbone, its queries, keys and values in layers of their own.
            names: Full names of the targets inside the backbone's module.

        Returns:
            What goes along with the training, if anything.
        """

    def misfit(self, target: LinearShape) -> str | None:
        """Say why a linear layer cannot be adapted, or return None when it can."""
        return None

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs the targets as linear layers of their own, and such that the settings suit."""
        if missing := set(self.parts()) - set(backbone.linears):
            lacking = backbone.lacks("qkv") or f"{backbone.name} has no such linear layer"
            return f"{lacking} (targets {', '.join(sorted(missing))})"
        targets = [shape for part in self.parts() for shape in backbone.linears[part]]
        reason = next((reason for target in targets if (reason := self.misfit(target))), None)
        return f"{backbone.name}: {reason}" if reason else None

    def parts(self) -> tuple[str, ...]:
        """The targets, in the words of `Backbone.linears`."""
        return tuple(cast("Any", self.settings).targets.split(","))

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Take fused layers apart, wrap the targets and put a head on the backbone."""
        backbone.split_qkv()
        names = [name for block in backbone.linears(*self.parts()) for name in block]
        companion = self.wrap(backbone, names)
        module = Classifier(backbone, num_classes)
        learned = {
            f"backbone.{name}.{part}" for name in names for part in _learned(backbone.module.get_submodule(name))
        }
        return Adapted(
            module,
            frozenset(learned | {"head.weight", "head.bias"}),
            companion=companion,
            merge=lambda: _merge(backbone, names),
        )


class PeftMethod(LayerMethod[S]):
    """Lets peft put its layers around the targets; a subclass gives peft's config."""

    @abstractmethod
    def config(self, names: list[str]) -> PeftConfig:
        """Describe the layers to peft.

        Args:
            names: Full names of the targets, for ``target_modules``.
        """

    def wrap(self, backbone: Backbone, names: list[str]) -> Companion | None:
        """Call peft's tuner, which freezes everything else; its layers draw from torch's generator in their order."""
        return self.companion(self.inject(backbone.module, self.config(names)))

    def companion(self, tuner: Any) -> Companion | None:
        """What goes along with the training, given peft's tuner."""
        return None

    @staticmethod
    def inject(module: nn.Module, config: PeftConfig) -> Any:
        """Put peft's layers into a module, in place, and return the tuner.

        peft's own function for this refuses tuners whose layers share a projection; calling the tuner does the same.
        """
        return PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](module, config, _ADAPTER)


def _learned(layer: Any) -> list[str]:
    """The names inside a layer of the parameters that it declares as learned."""
    parts: tuple[str, ...] = layer.adapter_layer_names
    return [
        name for name, _ in layer.named_parameters() if name in parts or name.startswith(tuple(f"{p}." for p in parts))
    ]


def cannot_cut(width: int, what: str, size: int) -> str | None:
    """Say that a width is no multiple of a size, or return None when it is one."""
    return f"{width} channels of a target cannot be cut into {what} of {size}" if width % size else None


def too_large(what: str, value: int, most: int) -> str | None:
    """Say that a setting is larger than a target allows, or return None when it is not."""
    return f"a {what} of {value} is more than the {most} that a target has room for" if value > most else None


def _merge(backbone: Backbone, names: list[str]) -> None:
    """Fold each layer into the linear layer that it wraps and put that one back."""
    with torch.no_grad():
        for name in names:
            layer = cast("Any", backbone.module.get_submodule(name))
            layer.merge()
            backbone.replace(name, layer.get_base_layer())
    backbone.fuse_qkv()
    # peft leaves its config on the module.
    vars(backbone.module).pop("peft_config", None)
