"""From what happened in a run to the parts of its result."""

from __future__ import annotations

import shlex
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from petlbench.config import RunConfig
from petlbench.data.record import SPLITS
from petlbench.data.task import TaskData
from petlbench.data.views import Normalization
from petlbench.errors import PetlbenchError, RunError, Stopped
from petlbench.evaluation import Labels, Logits
from petlbench.external import shared_images
from petlbench.features.source import CachedFeatures, FeatureSource
from petlbench.intervals import compute_intervals
from petlbench.memory.measure import MemoryMeter, PhaseMemory
from petlbench.memory.shortage import describe_shortage, is_shortage
from petlbench.result import Inference, Memory, Result, Status

__all__ = [
    "Ending",
    "describe_data",
    "describe_failure",
    "describe_intervals",
    "describe_memory",
    "final_metrics",
    "shortage_while_building",
]

_GOES_ON = "the same command goes on from here"

# The figures of memory that a tracker is told.
_MEMORY = ("allocated", "reserved", "process")


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Args:
        status: The result's status.
        outputs: Labels (N,) and logits (N, C) by split, for a finished run.
        error: What went wrong, for the others.
        resumable: Whether the same command can go on from the last checkpoint.
    """

    status: Status
    outputs: Mapping[str, tuple[Labels, Logits]] = field(default_factory=dict)
    error: dict[str, str] | None = None
    resumable: bool = False


def describe_failure(error: BaseException, config: RunConfig) -> Ending:
    """Turn whatever stopped a run into an ending that says so.

    Args:
        error: The exception.
        config: The run.
    """
    if isinstance(error, KeyboardInterrupt):
        told = {"kind": "interrupted", "message": "stopped by the user", "hint": _GOES_ON}
        return Ending("interrupted", error=told, resumable=True)
    if isinstance(error, Stopped):
        return _describe_stop(error)
    if is_shortage(error):
        return Ending("oom", error=_describe_out_of_memory(error, config))
    if isinstance(error, OSError):
        message = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        hint = "mend that (room on the disk?); the same command goes on from the last epoch"
        return Ending("failed", error={"kind": "io", "message": message, "hint": hint}, resumable=True)
    if isinstance(error, PetlbenchError):
        return Ending("failed", error={"kind": error.kind, "message": error.message, "hint": error.hint})
    told = {
        "kind": "exception",
        "message": f"{type(error).__name__}: {error}",
        "hint": "the traceback stands in result.json",
        "traceback": "".join(traceback.format_exception(error)),
    }
    return Ending("failed", error=told)


def _describe_stop(error: Stopped) -> Ending:
    resumable = error.status != "pruned"
    told = {"kind": error.status, "message": error.message, "hint": _GOES_ON if resumable else ""}
    return Ending(cast("Status", error.status), error=told, resumable=resumable)


def describe_intervals(
    data: TaskData, external: TaskData | None, outputs: Mapping[str, tuple[Labels, Logits]]
) -> dict[str, Any]:
    """Give the intervals of the scores of each split, patients or lesions counted once.

    Args:
        data: The images of the run's own dataset.
        external: Those of its external test set, which are the split ``external``.
        outputs: Labels (N,) and logits (N, C) by split, in the order of the split's indices.
    """
    records = {side: data.records(side) for side in SPLITS} | {"external": external.records("test") if external else []}
    return {
        split: compute_intervals(labels, logits, [record.group for record in records[split]])
        for split, (labels, logits) in outputs.items()
    }


def describe_memory(meter: MemoryMeter) -> Memory:
    """Take the training step's peak from a meter, and every phase beside it."""
    step = meter.phases.get("train_step", PhaseMemory())
    return Memory(
        allocated=step.allocated,
        reserved=step.reserved,
        process=step.process,
        resident=step.resident,
        source=meter.source,
        phases={name: asdict(figures) for name, figures in meter.phases.items()},
        parts=step.parts,
        others=meter.already_used,
    )


def describe_data(
    data: TaskData, normalization: Normalization, external: TaskData | None, source: FeatureSource
) -> dict[str, Any]:
    """Count the images by split and class, name what was skipped, and say what was made of the images.

    Args:
        data: The images that the run learns from.
        normalization: How colours are normalised.
        external: The external test set, where there is one.
        source: Gives the frozen features of the images that the run learns from.
    """
    found = {**_describe_images(data), "normalization": asdict(normalization)}
    if isinstance(source, CachedFeatures):
        each = source.store.bytes_an_image
        found["features"] = {"bytes_per_image": each, "bytes": each * len(data.dataset.records)}
    if external is not None:
        found["external"] = {**_describe_images(external), "shared_images": shared_images(external, data)}
    return found


def _describe_images(data: TaskData) -> dict[str, Any]:
    card, classes = data.dataset.card, data.dataset.classes
    counts = {side: Counter(classes[record.label] for record in data.records(side)) for side in SPLITS}
    return {
        "title": card.title,
        "card_version": card.version,
        "synthetic": card.synthetic,
        "classes": list(classes),
        "images": {side: counts[side].total() for side in SPLITS},
        "images_by_class": {side: dict(counts[side]) for side in SPLITS},
        "grouping": card.grouping,
        "skipped": list(data.skipped),
        "notes": list(data.dataset.notes),
    }


def final_metrics(result: Result) -> dict[str, float]:
    """The figures of a result that a tracker shows beside the curves."""
    found: dict[str, float | None] = {}
    # The curve owns the names val_…; the best epoch's figures must not become another point of it.
    prefixes = {"val": "best_val", "test": "test", "external": "external"}
    for split, metrics in result.metrics.items():
        found |= {f"{prefixes[split]}_{name}": value for name, value in metrics.items() if isinstance(value, float)}
    if result.parameters is not None:
        found |= {"learnable_parameters": result.parameters.learnable, "learnable_ratio": result.parameters.ratio}
    if result.memory is not None:
        found |= {f"memory_{name}": getattr(result.memory, name) for name in _MEMORY}
    found |= _inference_figures(result.inference)
    found |= {"ppe": result.scores.ppe, "pme": result.scores.pme}
    found |= {f"seconds_{name}": value for name, value in result.timing.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def shortage_while_building(error: BaseException, config: RunConfig) -> RunError:
    """The error of a run whose backbone alone does not fit; there is nothing yet that a result could be made of.

    Args:
        error: One that `is_shortage` is true of.
        config: The run.
    """
    told = _describe_out_of_memory(error, config)
    message = told["message"].replace("out of memory", f"out of memory while building {config.backbone}", 1)
    return RunError(message, hint=told["hint"], kind="oom")


def _describe_out_of_memory(error: BaseException, config: RunConfig) -> dict[str, str]:
    shortage = describe_shortage(error)
    said = (str(error) or type(error).__name__).splitlines()[0]
    more = "a smaller --image-size" + (" or --precision bf16" if config.precision == "fp32" else "")
    hint = f"{_memory_command(config, shortage)} names the largest --batch-size that fits; {more} takes less, too"
    return {"kind": "oom", "message": f"out of memory: {said}", "hint": hint, **shortage}


def _memory_command(config: RunConfig, shortage: Mapping[str, str]) -> str:
    """The command that finds what fits, into all that the device has where that was said."""
    total = shortage.get("total", "")
    words = ["petlbench", "memory", "--method", config.method, "--dataset", config.dataset]
    words += ["--backbone", config.backbone, "--image-size", str(config.image_size), "--precision", config.precision]
    return shlex.join([*words, "--budget", total.replace(" ", "") if total.endswith("iB") else "SIZE"])


def _inference_figures(inference: Inference | None) -> dict[str, float | None]:
    if inference is None:
        return {}
    figures = {"latency": inference.latency, "images_per_second": inference.images_per_second}
    if inference.memory is not None:
        figures |= {f"memory_{name}": getattr(inference.memory, name) for name in _MEMORY}
    return {f"inference_{name}": value for name, value in figures.items()}
