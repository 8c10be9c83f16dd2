"""What prediction costs: its time and its peak memory, on the device of the run."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from petlbench.core.environment import describe_hardware
from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.core.user_files import read_json
from petlbench.data.loader import Batch
from petlbench.features.source import LiveFeatures
from petlbench.memory.measure import MemoryMeter
from petlbench.memory.out_of_memory import is_shortage
from petlbench.memory.predict import predict_inference
from petlbench.models.build import assemble
from petlbench.results.result import Inference, InferenceMemory
from petlbench.run.options import RunContext
from petlbench.run.record import code_digests
from petlbench.run.resolve import ResolvedRun
from petlbench.training.evaluation import Predictor

_META = torch.device("meta")
# Timed passes and the seconds that they may take: a few of a large model, more of a small one, never more than this.
_FEWEST, _MOST = 3, 20
_SHORT, _LONG = 0.3, 2.0
# What measuring may take: these seconds, or this share of what the run has taken.
_LEAST, _SHARE = 2.0, 0.02
# Passes of a batch: one whose memory is read, one that warms up, one that is timed.
_PASSES = 3
# What decides the cost of prediction, of a config.
_DECISIVE = (
    "method", "method_settings", "backbone", "image_size", "device", "threads", "precision", "extract_precision",
    "attention_kernel",
)  # fmt: skip


@dataclass(frozen=True)
class InferenceCost:
    """What prediction of a run costs, found within bounds: at most 2 s or a fiftieth of what the run has taken.

    A figure that was measured on this machine for another seed is taken as it is, with that run's name. Where a batch
    would take longer than the bound, its throughput is missing, with the reason, and its memory is predicted.

    Args:
        run: The run.
        context: How prediction is measured, and the cache in which figures are kept for other seeds.
        num_classes: Number of classes C.
    """

    run: ResolvedRun
    context: RunContext
    num_classes: int

    def measure(self, predictor: Predictor, meter: MemoryMeter, spent: float) -> Inference | None:
        """The figures; None where none are asked for.

        Args:
            predictor: As for `measure_inference`.
            meter: Measures the phase ``predict``.
            spent: Seconds that the run has taken so far.
        """
        how = self.context.options.measure_inference
        if how == "off":
            return None
        if how == "auto" and (kept := self._kept()) is not None:
            return kept
        config = self.run.config
        seconds = math.inf if how == "full" else max(_LEAST, _SHARE * spent)
        sizes = {name: view.size for name, view in self.run.views.items()}
        cost = measure_inference(predictor, sizes, config.training.batch_size, meter, seconds)
        if cost.latency is None:
            return cost
        if cost.memory is None:
            cost = cost.model_copy(update={"memory": self._predicted()})
        self._keep(cost.model_copy(update={"measured_by": config.run_id}))
        return cost

    def _predicted(self) -> InferenceMemory:
        config = self.run.config
        with torch.random.fork_rng(devices=[]):
            assembled = assemble(config, self.run.method, self.num_classes, _META, self.context.catalog)
            return predict_inference(config, assembled)

    @cached_property
    def _file(self) -> Path:
        """Where the figures lie that hold for this method, settings, backbone, size and machine."""
        config = self.run.config.model_dump(mode="json")
        facts = {name: config[name] for name in _DECISIVE} | code_digests(self.run.config.method, self.context.catalog)
        facts |= {"batch_size": config["training"]["batch_size"], "classes": self.num_classes}
        facts["hardware"] = describe_hardware()
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        return self.context.options.cache_dir / "inference" / f"{name}.json"

    def _kept(self) -> Inference | None:
        if not self._file.exists():
            return None
        try:
            return Inference.model_validate(read_json(self._file))
        except (InputError, ValidationError):  # a damaged one is measured again
            return None

    def _keep(self, cost: Inference) -> None:
        with suppress(OSError):  # a full disk takes nothing from the run
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(self._file) as temporary:
                temporary.write_text(cost.model_dump_json())


def measure_inference(
    predictor: Predictor, views: Mapping[str, int], batch_size: int, meter: MemoryMeter, seconds: float = math.inf
) -> Inference:
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
        seconds: What this may take. One image passes in any case; a batch does not that would take longer.

    Returns:
        Median seconds of one image, images per second at the batch size, and the peak of one batch in bytes; or none of
        these and the reason, where the batch does not fit into memory, say.
    """
    modules, began = _modules(predictor), time.perf_counter()
    try:
        with _deployed(modules, predictor.device):
            latency = _seconds(predictor, _images(views, 1, predictor.device), seconds)
            left = seconds - (time.perf_counter() - began)
            if _PASSES * latency * batch_size > left:
                took = f"{batch_size} images would take about {latency * batch_size:.2g} s"
                return Inference(batch_size=batch_size, latency=latency, error=f"{took}; --measure-inference full")
            batch = _images(views, batch_size, predictor.device)
            with meter.phase("predict", (*modules, batch.views)):
                predictor.logits(batch)
            throughput = batch_size / _seconds(predictor, batch, seconds - (time.perf_counter() - began))
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


def _seconds(predictor: Predictor, batch: Batch, most: float) -> float:
    """Median seconds of a pass, after one that warms up; the seconds of that one where a second takes too long."""
    first = _timed(predictor, batch)
    if 2 * first > most:
        return first
    began, times = time.perf_counter(), [_timed(predictor, batch)]
    long = min(_LONG, most - 2 * first)
    while len(times) < _MOST and time.perf_counter() - began <= (_SHORT if len(times) >= _FEWEST else long):
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
