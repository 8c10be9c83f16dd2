"""Peak memory without the device: the real training step on tensors of device ``meta``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from petlbench.assemble import Assembled, new_step
from petlbench.config import RunConfig
from petlbench.data.loader import Batch
from petlbench.features.source import FeatureSource, LiveFeatures, NoFeatures
from petlbench.memory.live import LiveTensors
from petlbench.method import FeatureSpec, Inputs
from petlbench.result import Memory

__all__ = ["predict_step_memory"]

_META = torch.device("meta")


def predict_step_memory(config: RunConfig, assembled: Assembled) -> Memory:
    """Predict the peak of a training step: what lives in tensors, as the config's device would count it in fp32.

    Two steps are taken, because the optimiser's state exists from the first step's end on.

    Args:
        config: The run.
        assembled: Its parts, built on device ``meta``.

    Returns:
        The peak in bytes and its split, source ``predicted``; reserved and process memory are not predicted, and
        nothing is for mixed precision, whose casts device ``meta`` does not make.
    """
    if config.precision != "fp32":
        return Memory(allocated=None, reserved=None, process=None, resident=None, source="predicted")
    step = new_step(config, assembled.adapted, None)
    source = _source(config, assembled)
    batch = _meta_batch(config, assembled, source)
    assembled.adapted.module.train()
    # Where the host is the device, the small tensors that stay there in any case (step counts, indices) count too.
    live = LiveTensors(_META, "cpu") if config.device == "cpu" else LiveTensors(_META)
    live.add(assembled.adapted.module, step.optimizer, batch, *_at_work(assembled, source))
    with live, _FusedKernel(config):
        for _ in range(2):
            step(source(batch), batch.labels)
    return Memory(allocated=live.peak, reserved=None, process=None, resident=None, source="predicted", parts=live.parts)


def _at_work(assembled: Assembled, source: FeatureSource) -> Sequence[object]:
    return (assembled.backbone.module,) if isinstance(source, LiveFeatures) else ()


def _source(config: RunConfig, assembled: Assembled) -> FeatureSource:
    if assembled.frozen is None:
        return NoFeatures()
    if config.preload:
        return _PreloadedOnMeta(assembled.frozen.spec(assembled.backbone.info))
    return LiveFeatures(assembled.backbone, assembled.frozen, config.precision)


def _meta_batch(config: RunConfig, assembled: Assembled, source: FeatureSource) -> Batch:
    size, views = config.training.batch_size, assembled.method.views(assembled.backbone.info, config.image_size)
    images = {
        name: torch.empty(size, 3, view.size, view.size, device=_META)
        for name, view in views.items()
        if name != source.spared_view
    }
    return Batch(torch.arange(size), images, torch.empty(size, dtype=torch.int64, device=_META))


class _FusedKernel(TorchFunctionMode):
    """Sends fused attention to the kernel that the device would choose.

    Left to itself, device ``meta`` falls back on explicit attention, which keeps the whole attention matrix.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self._on_cpu = config.device == "cpu"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function, attention by the chosen kernel."""
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self._attend(*args, **(kwargs or {}))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, **options: Any
    ) -> Tensor:
        if attn_mask is not None:
            return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, **options)
        causal = bool(options.get("is_causal", False))
        ops: Any = torch.ops.aten
        if self._on_cpu:
            output = ops._scaled_dot_product_flash_attention_for_cpu(query, key, value, dropout_p, causal)
        elif query.dtype == torch.float32:
            output = ops._scaled_dot_product_efficient_attention(query, key, value, None, True, dropout_p, causal)
        else:
            output = ops._scaled_dot_product_flash_attention(query, key, value, dropout_p, causal)
        return cast("Tensor", output[0])


@dataclass(frozen=True)
class _PreloadedOnMeta:
    """Stands for preloaded features: tensors of their shapes."""

    spec: FeatureSpec

    @property
    def spared_view(self) -> str:
        return self.spec.view

    def __call__(self, batch: Batch) -> Inputs:
        count = len(batch.index)
        rows = {
            name: torch.empty(count, *spec.shape, dtype=spec.dtype, device=_META)
            for name, spec in self.spec.tensors.items()
        }
        return Inputs(batch.views, rows)
