"""Peak memory without the device: the real training step on tensors of device ``meta``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

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
    """Predict the peak of a training step: what lives in tensors, as a device would count it in fp32.

    Two steps are taken, because the optimiser's state exists from the first step's end on.

    Args:
        config: The run.
        assembled: Its parts, built on device ``meta``.

    Returns:
        The peak in bytes and its split, source ``predicted``; reserved and process memory are not predicted.
    """
    step = new_step(config, assembled.adapted, None)
    source = _source(config, assembled)
    batch = _meta_batch(config, assembled, source)
    assembled.adapted.module.train()
    live = LiveTensors(_META)
    live.add(assembled.adapted.module, step.optimizer, batch, *_at_work(assembled, source))
    with live:
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
