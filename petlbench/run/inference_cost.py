"""What prediction costs: its time and its peak memory, on the device of the run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from statistics import median

import torch
from torch import Tensor, nn

from petlbench.data.loader import Batch
from petlbench.features.source import LiveFeatures
from petlbench.memory.measure import MemoryMeter
from petlbench.memory.out_of_memory import is_shortage
from petlbench.results.result import Inference, InferenceMemory
from petlbench.training.evaluation import Predictor

# Timed passes and the seconds that they may take: a few of a large model, more of a small one, never more than this.
_FEWEST, _MOST = 3, 20
_SHORT, _LONG = 0.3, 2.0


def measure_inference(predictor: Predictor, views: Mapping[str, int], batch_size: int, meter: MemoryMeter) -> Inference:
    """Time prediction and measure its peak memory, in evaluation mode, on images that are on the device already.

    The pixels are random, drawn from a generator of their own. The modules go to the device, and gradients that
    training left behind are dropped, since prediction has none; the modules' modes are put back. A run that has come
    so far is not lost over this: what goes wrong is said in the figures' place.

    Args:
        predictor: Runs the module, with features that are computed live where it takes any: that is what a deployed
            model does, and its backbone counts.
        views: Height and width in pixels of each view that the module or its features need, by name.
        batch_size: Images B of the batch whose memory and throughput are measured.
        meter: Measures the phase ``predict``.

    Returns:
        Median seconds of one image, images per second at the batch size, and the peak of one batch in bytes; or none of
        these and the reason, where the batch does not fit into memory, say.
    """
    modules = _modules(predictor)
    try:
        with _deployed(modules, predictor.device):
            latency = _seconds(predictor, _images(views, 1, predictor.device))
            batch = _images(views, batch_size, predictor.device)
            with meter.phase("predict", (*modules, batch.views)):
                predictor.logits(batch)
            throughput = batch_size / _seconds(predictor, batch)
    except Exception as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        return Inference(batch_size=batch_size, error=f"out of memory: {said}" if is_shortage(error) else said)
    memory = InferenceMemory(**asdict(meter.phases["predict"]), source=meter.source)
    return Inference(batch_size=batch_size, latency=latency, images_per_second=throughput, memory=memory)


def _modules(predictor: Predictor) -> tuple[nn.Module, ...]:
    """The modules at work: the adapted one, and the backbone where it computes features beside it."""
    source = predictor.source
    return (predictor.module, source.backbone.module) if isinstance(source, LiveFeatures) else (predictor.module,)


@contextmanager
def _deployed(modules: tuple[nn.Module, ...], device: torch.device) -> Iterator[None]:
    modes = {part: part.training for module in modules for part in module.modules()}
    for module in modules:
        module.to(device).eval().zero_grad(set_to_none=True)
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _images(views: Mapping[str, int], count: int, device: torch.device) -> Batch:
    """Random images by view name, each (count, 3, size, size), on the device; nothing else of the batch is."""
    rng, nothing = torch.Generator().manual_seed(0), torch.empty(0, dtype=torch.int64)
    pixels = {name: torch.randn(count, 3, size, size, generator=rng).to(device) for name, size in views.items()}
    return Batch(nothing, pixels, nothing)


def _seconds(predictor: Predictor, batch: Batch) -> float:
    """Median seconds of a pass, after one that warms up."""
    _timed(predictor, batch)
    began, times = time.perf_counter(), [_timed(predictor, batch)]
    while len(times) < _MOST and time.perf_counter() - began <= (_SHORT if len(times) >= _FEWEST else _LONG):
        times.append(_timed(predictor, batch))
    return median(times)


def _timed(predictor: Predictor, batch: Batch) -> float:
    _synchronize(predictor.device)
    began = time.perf_counter()
    logits: Tensor = predictor.logits(batch)
    _synchronize(logits.device)
    return time.perf_counter() - began


def _synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given; the CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
