"""Peak memory without the device: the real training step on tensors of device ``meta``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from petlbench.core.config import RunConfig
from petlbench.data.loader import Batch
from petlbench.features.frozen import in_form, shared_tensors
from petlbench.features.quantization import StoredFeatures, stored_tensors
from petlbench.features.source import FeatureSource, LiveFeatures, NoFeatures
from petlbench.memory.allocator import BLOCK, CachingAllocator
from petlbench.memory.live_tensors import LiveTensors
from petlbench.models.activation_checkpointing import recompute_under
from petlbench.models.backbone import AttentionKernel
from petlbench.models.build import Assembled
from petlbench.models.method import Inputs, TensorSpec
from petlbench.models.precision import autocast, autocast_type, meta_stands_for
from petlbench.results.result import InferenceMemory, Memory
from petlbench.training.evaluation import Predictor
from petlbench.training.loss import Loss
from petlbench.training.losses.cross_entropy import CROSS_ENTROPY
from petlbench.training.step import new_step

CONTEXT = 480 * 2**20
"""Bytes that a process holds on a CUDA device beside what torch reserves: the CUDA context with torch's kernels in it.

An estimate, 300 to 600 MiB on the cards of these years: it depends on card, driver and torch.
"""

WORKSPACE = 32 * 2**20
"""Bytes that cuBLAS keeps from its first call on, with the setting that petlbench starts it with (``:4096:8``)."""

_META = torch.device("meta")
# What the memory-efficient kernel asks of a mask's rows, in elements.
_ALIGNMENT = 8


def predict_training(
    config: RunConfig,
    assembled: Assembled,
    loss: Loss = CROSS_ENTROPY,
    *,
    context: int = CONTEXT,
    block: int = BLOCK,
) -> Memory:
    """The peak of a training step, as the config's device would count it.

    Two steps are taken, because the optimiser's state exists from the first step's end on.

    Args:
        config: The run.
        assembled: Its parts, built on device ``meta``.
        loss: The loss that the config names.
        context: Bytes of the CUDA context.
        block: Bytes to which each tensor is rounded up; 1 counts exact sizes.

    Returns:
        Bytes and their split. Reserved memory and the process's (reserved and the context) are None but on CUDA. All
        are None of a method that is solved, which takes as much as there are training images.
    """
    if assembled.adapted.solve is not None:
        return Memory(allocated=None, reserved=None, process=None, source="predicted")
    source = feature_source(config, assembled)
    weighted = config.training.class_weights != "none"
    weights = torch.empty(assembled.num_classes, device=_META) if weighted else None
    step = new_step(config, assembled.adapted, source, weights, loss)
    device = MetaDevice(config, block=block)
    device.hold(assembled.adapted.module, step.optimizer, step.objective, *source.beside)
    assembled.adapted.module.train()
    with device.at_work():
        for _ in range(2):
            step(device.batch(assembled, source.spared_view, loss))
    return device.memory(context)


def predict_inference(config: RunConfig, assembled: Assembled, *, context: int = CONTEXT) -> InferenceMemory:
    """The peak of predicting one batch, frozen features computed live: what a deployed model takes.

    Arguments and bytes are those of `predict_training`.
    """
    source = feature_source(config.model_copy(update={"preload": False}), assembled)
    module = assembled.adapted.module
    device = MetaDevice(config)
    device.hold(module.eval(), *source.beside)
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
            with self._live, fused_kernel(rules), recompute_under(lambda: self._recomputing(rules)):
                workspace = torch.empty(self._workspace if self._allocator else 0, dtype=torch.uint8, device=_META)
                yield
                del workspace
        finally:
            meta_stands_for.reset(token)

    @contextmanager
    def _recomputing(self, rules: str) -> Iterator[None]:
        """What a block runs under when it is computed again in the backward pass."""
        with fused_kernel(rules), autocast(_META, self._config.precision):
            yield

    def hold(self, *things: object) -> None:
        """Count modules, optimisers and tensors that are there before the work begins."""
        self._live.add(*things)

    def batch(self, assembled: Assembled, spared_view: str | None, loss: Loss = CROSS_ENTROPY) -> Batch:
        """A batch of images on the device, without the view whose features are preloaded."""
        views = assembled.method.views(assembled.backbone.info, self._config.image_size)
        count = self._config.training.batch_size
        sizes = {name: view.size for name, view in views.items() if name != spared_view}
        images = {name: torch.empty(count, 3, size, size, device=_META) for name, size in sizes.items()}
        shape, dtype = loss.example(count, assembled.num_classes)
        batch = Batch(torch.arange(count), images, torch.empty(shape, dtype=dtype, device=_META))
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
        kept = in_form(assembled.frozen, config.cache_form)
        spec, shared = kept.spec(assembled.backbone.info), shared_tensors(kept, assembled.backbone, _META)
        return Preloaded(spec.view, stored_tensors(spec, config.cache_precision or "fp32"), shared)
    return LiveFeatures(assembled.backbone, assembled.frozen, config.features_precision)


@dataclass(frozen=True)
class Preloaded:
    """Stands for preloaded features on device ``meta``: tensors of their shapes, beside what they are read by."""

    spared_view: str
    tensors: Mapping[str, TensorSpec]
    shared: Mapping[str, Tensor]

    @property
    def beside(self) -> Sequence[object]:
        """What the features are read by."""
        return (self.shared,)

    def __call__(self, batch: Batch) -> Inputs:
        """A batch with features of their shapes."""
        count = len(batch.labels)
        specs = self.tensors.items()
        rows = {name: torch.empty(count, *spec.shape, dtype=spec.dtype, device=_META) for name, spec in specs}
        return Inputs(batch.views, StoredFeatures(rows), self.shared)


def fused_kernel(device: str) -> AttentionKernel:
    """The context in which fused attention on ``meta`` takes the kernel that a device would choose.

    Left to itself, ``meta`` falls back on explicit attention, which keeps the whole attention matrix. CUDA takes the
    flash kernel for half precision without a mask, and else the memory-efficient one.

    Args:
        device: The type of device, ``cuda`` or ``cpu``.
    """
    return AttentionKernel(partial(_attend, device))


def _attend(  # noqa: PLR0917  # those behind the device are the arguments of torch's function
    device: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    explicit = partial(
        nn.functional.scaled_dot_product_attention,
        attn_mask=attn_mask,
        dropout_p=dropout_p,
        is_causal=is_causal,
        scale=scale,
    )
    if device != "cpu" and query.dim() != 4:
        return explicit(query, key, value)
    dtype = autocast_type() or query.dtype
    query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
    learns_mask = attn_mask is not None and attn_mask.requires_grad
    if device == "cpu" and (query.dim() != 4 or dropout_p > 0 or learns_mask):
        return explicit(query, key, value)  # the CPU has no fused kernel that drops out or that learns a mask
    ops: Any = torch.ops.aten
    mask = _added(attn_mask, dtype) if attn_mask is not None else None
    if device == "cpu":
        kernel = partial(ops._scaled_dot_product_flash_attention_for_cpu, attn_mask=mask)
    elif mask is None and dtype != torch.float32:
        kernel = ops._scaled_dot_product_flash_attention
    else:
        mask = _aligned(mask).expand(*query.shape[:3], key.shape[2]) if mask is not None else None
        options = {"attn_bias": mask, "compute_log_sumexp": torch.is_grad_enabled()}
        kernel = partial(ops._scaled_dot_product_efficient_attention, **options)
    return cast("Tensor", kernel(query, key, value, dropout_p=dropout_p, is_causal=is_causal, scale=scale)[0])


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as it is added to the scores: torch makes such a one from a boolean mask."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.where(mask, torch.zeros((), dtype=dtype, device=mask.device), -torch.inf)


def _aligned(mask: Tensor) -> Tensor:
    """Give a mask rows that begin at multiples of eight elements, which the memory-efficient kernel asks for.

    Torch copies one whose rows do not (the 49 of a window of 7 by 7, say) into wider rows.
    """
    if mask.stride(-1) == 1 and all(stride % _ALIGNMENT == 0 for stride in mask.stride()[:-1]):
        return mask
    width = mask.shape[-1]
    return nn.functional.pad(mask, (0, _ALIGNMENT - width % _ALIGNMENT))[..., :width]
