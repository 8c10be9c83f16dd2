"""The precision in which features are stored, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from petlbench.models.method import FeatureSpec, TensorSpec

CachePrecision = Literal["fp32", "bf16", "fp16", "int8"]

DEFAULT_CACHE_PRECISION: CachePrecision = "int8"
"""The smallest one: it moves the logits of trained FPT runs by about 0.1 % of their norm (docs/preloading.md)."""

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
_SCALE = ".scale"
_LARGEST = 127


def stored_tensors(spec: FeatureSpec, precision: CachePrecision) -> dict[str, TensorSpec]:
    """One image's tensors as they are stored, by name; in ``int8`` each vector (last axis) has a scale in bf16.

    Integers are stored as they are.
    """
    vectors = {name: tensor.shape for name, tensor in spec.tensors.items() if tensor.dtype.is_floating_point}
    stored = {name: TensorSpec(shape, _TYPES[precision]) for name, shape in vectors.items()}
    if precision == "int8":
        stored |= {name + _SCALE: TensorSpec(shape[:-1], torch.bfloat16) for name, shape in vectors.items()}
    return stored | {name: tensor for name, tensor in spec.tensors.items() if name not in vectors}


def compact(features: Mapping[str, Tensor], precision: CachePrecision) -> dict[str, Tensor]:
    """The tensors that `stored_tensors` names, each (B, ...), of features in fp32 by name, each (B, ...).

    A value that fp16 cannot hold becomes its largest.
    """
    largest = torch.finfo(torch.float16).max
    stored: dict[str, Tensor] = {}
    for name, value in features.items():
        if not value.is_floating_point():
            stored[name] = value
        elif precision == "int8":
            stored[name], stored[name + _SCALE] = _quantized(value.float())
        else:
            bounded = value.clamp(-largest, largest) if precision == "fp16" else value
            stored[name] = bounded.to(_TYPES[precision])
    return stored


class StoredFeatures(Mapping[str, Tensor]):
    """Features as they are stored, which become fp32 when they are read.

    A module that reads them layer by layer takes a layer at a time by `stored_parts`, and need not hold all in fp32.

    Args:
        tensors: What `compact` gave, each (B, ...), on the device.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        """A feature in fp32, (B, ...)."""
        return dequantize(*self.parts(name))

    def __iter__(self) -> Iterator[str]:
        """The names of the features."""
        return (name for name in self._tensors if not name.endswith(_SCALE))

    def __contains__(self, name: object) -> bool:
        """Whether there is such a feature; nothing is restored for that."""
        return name in self._tensors

    def __len__(self) -> int:
        """How many features there are."""
        return sum(1 for _ in self)

    def parts(self, name: str) -> tuple[Tensor, ...]:
        """A feature as it is stored: its values, and their scale where they have one."""
        scale = self._tensors.get(name + _SCALE)
        return (self._tensors[name],) if scale is None else (self._tensors[name], scale)


def stored_parts(features: Mapping[str, Tensor], name: str) -> tuple[Tensor, ...]:
    """The one or two tensors that `dequantize` makes a feature of: itself, or values and scale from the cache.

    Each is (B, ...), with all axes in common but the last one of the first.
    """
    return features.parts(name) if isinstance(features, StoredFeatures) else (features[name],)


def dequantize(values: Tensor, scale: Tensor | None = None) -> Tensor:
    """Stored values (..., D) in fp32, times the scale of each vector (...) where there is one.

    Wider ones stay, and so do integers that have no scale.
    """
    if scale is not None:
        return values.float() * scale.float().unsqueeze(-1)
    stays = values.dtype.itemsize >= torch.float32.itemsize or not values.is_floating_point()
    return values if stays else values.float()


def _quantized(value: Tensor) -> tuple[Tensor, Tensor]:
    """Round each vector to 255 steps of its own size: from minus its largest magnitude to plus."""
    # The type has the range of fp32. Its scale is rounded first, so that values are rounded to the steps that they are
    # restored by; the largest is cut by half a step at most.
    scale = (value.abs().amax(dim=-1) / _LARGEST).clamp(min=torch.finfo(torch.bfloat16).tiny).bfloat16()
    steps = (value / scale.float().unsqueeze(-1)).round_().clamp_(-_LARGEST, _LARGEST)
    return steps.to(torch.int8), scale
