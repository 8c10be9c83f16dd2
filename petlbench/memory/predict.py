"""Peak memory without the device: the real training step on tensors of device ``meta``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from petlbench.core.config import RunConfig
from petlbench.data.loader import Batch
from petlbench.features.precision import StoredFeatures, stored_tensors
from petlbench.features.source import FeatureSource, LiveFeatures, NoFeatures
from petlbench.memory.allocator import BLOCK, CachingAllocator
from petlbench.memory.fused_attention import FusedKernel
from petlbench.memory.live_tensors import LiveTensors
from petlbench.models.activation_checkpointing import recompute_under
from petlbench.models.build import Assembled
from petlbench.models.method import Inputs, TensorSpec
from petlbench.models.precision import autocast, meta_stands_for
from petlbench.results.result import InferenceMemory, Memory
from petlbench.training.evaluation import Predictor
from petlbench.training.step import new_step

__all__ = ["CONTEXT", "WORKSPACE", "MetaDevice", "feature_source", "predict_inference", "predict_training"]

CONTEXT = 480 * 2**20
"""Bytes that a process holds on a CUDA device beside what torch reserves: the CUDA context with torch's kernels in it.

An estimate, 300 to 600 MiB on the cards of these years: it depends on card, driver and torch.
"""

WORKSPACE = 32 * 2**20
"""Bytes that cuBLAS keeps from its first call on, with the setting that petlbench starts it with (``:4096:8``)."""

_META = torch.device("meta")


def predict_training(config: RunConfig, assembled: Assembled, *, context: int = CONTEXT, block: int = BLOCK) -> Memory:
    """The peak of a training step, as the config's device would count it.

    Two steps are taken, because the optimiser's state exists from the first step's end on.

    Args:
        config: The run.
        assembled: Its parts, built on device ``meta``.
        context: Bytes of the CUDA context.
        block: Bytes to which each tensor is rounded up; 1 counts exact sizes.

    Returns:
        Bytes and their split. Reserved memory and the process's (reserved and the context) are None but on CUDA.
    """
    source = feature_source(config, assembled)
    weighted = config.training.class_weights != "none"
    weights = torch.empty(assembled.num_classes, device=_META) if weighted else None
    step = new_step(config, assembled.adapted, source, weights)
    device = MetaDevice(config, block=block)
    device.hold(assembled.adapted.module, step.optimizer, step.objective, *_beside(assembled, source))
    assembled.adapted.module.train()
    with device.at_work():
        for _ in range(2):
            step(device.batch(assembled, source.spared_view))
    return device.memory(context)


def predict_inference(config: RunConfig, assembled: Assembled, *, context: int = CONTEXT) -> InferenceMemory:
    """The peak of predicting one batch, frozen features computed live: what a deployed model takes.

    Arguments and bytes are those of `predict_training`.
    """
    source = feature_source(config.model_copy(update={"preload": False}), assembled)
    module = assembled.adapted.module
    device = MetaDevice(config)
    for part in (module, *_beside(assembled, source)):
        device.hold(part.eval())
    with device.at_work():
        batch = device.batch(assembled, source.spared_view)
        Predictor(module, source, _META, config.precision).logits(batch)
    return InferenceMemory(**device.memory(context).model_dump(include=set(InferenceMemory.model_fields)))


class MetaDevice:
    """Device ``meta`` in the place of the device of a config, with an account of what lies on it.

    Args:
        config: The run that is predicted.
        workspace: Bytes that cuBLAS keeps.
        block: Bytes to which each tensor is rounded up; 1 counts exact sizes.
    """

    def __init__(self, config: RunConfig, *, workspace: int = WORKSPACE, block: int = BLOCK) -> None:
        self._config = config
        self._workspace = workspace
        on_host = config.device == "cpu"
        self._allocator = CachingAllocator() if config.device == "cuda" else None
        # Where the host is the device, the small tensors that stay there in any case (step counts, indices) count too.
        self._live = LiveTensors(_META, *(("cpu",) if on_host else ()), block=block, allocator=self._allocator)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While entered, operations follow the rules of the device, and what they leave is counted."""
        rules = "cuda" if self._config.device == "cuda" else "cpu"
        token = meta_stands_for.set(rules)
        try:
            with self._live, FusedKernel(rules), recompute_under(lambda: self._recomputing(rules)):
                workspace = torch.empty(self._workspace if self._allocator else 0, dtype=torch.uint8, device=_META)
                yield
                del workspace
        finally:
            meta_stands_for.reset(token)

    @contextmanager
    def _recomputing(self, rules: str) -> Iterator[None]:
        """What a block runs under when it is computed again in the backward pass."""
        with FusedKernel(rules), autocast(_META, self._config.precision):
            yield

    def hold(self, *things: object) -> None:
        """Count modules, optimisers and tensors that are there before the work begins."""
        self._live.add(*things)

    def batch(self, assembled: Assembled, spared_view: str | None) -> Batch:
        """A batch of images on the device, without the view whose features are preloaded."""
        views = assembled.method.views(assembled.backbone.info, self._config.image_size)
        count = self._config.training.batch_size
        sizes = {name: view.size for name, view in views.items() if name != spared_view}
        images = {name: torch.empty(count, 3, size, size, device=_META) for name, size in sizes.items()}
        batch = Batch(torch.arange(count), images, torch.empty(count, dtype=torch.int64, device=_META))
        self._live.tag("other", (*images.values(), batch.labels))
        return batch

    def memory(self, context: int) -> Memory:
        """The peak so far in bytes; ``context`` are those of the CUDA context."""
        reserved = self._allocator.reserved if self._allocator else None
        return Memory(
            allocated=self._live.peak,
            reserved=reserved,
            process=reserved + context if reserved is not None else None,
            source="predicted",
            parts=self._live.parts,
        )


def feature_source(config: RunConfig, assembled: Assembled) -> FeatureSource:
    """What stands for the feature source of a run whose parts were built on device ``meta``."""
    if assembled.frozen is None:
        return NoFeatures()
    if config.preload:
        spec = assembled.frozen.spec(assembled.backbone.info)
        return _Preloaded(spec.view, stored_tensors(spec, config.cache_precision or "fp32"))
    return LiveFeatures(assembled.backbone, assembled.frozen, config.precision)


def _beside(assembled: Assembled, source: FeatureSource) -> Sequence[torch.nn.Module]:
    """The backbone, where it works in every step beside the module."""
    return (assembled.backbone.module,) if isinstance(source, LiveFeatures) else ()


@dataclass(frozen=True)
class _Preloaded:
    """Stands for preloaded features: tensors of their shapes."""

    spared_view: str
    tensors: Mapping[str, TensorSpec]

    def __call__(self, batch: Batch) -> Inputs:
        count = len(batch.labels)
        specs = self.tensors.items()
        rows = {name: torch.empty(count, *spec.shape, dtype=spec.dtype, device=_META) for name, spec in specs}
        return Inputs(batch.views, StoredFeatures(rows))
