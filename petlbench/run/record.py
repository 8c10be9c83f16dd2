"""From what happened in a run to the parts of its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from petlbench.data.record import SPLITS
from petlbench.data.views import Normalization
from petlbench.features.source import CachedFeatures, FeatureSource
from petlbench.memory.measure import MemoryMeter, PhaseMemory
from petlbench.metrics.classification import compute_intervals
from petlbench.metrics.metric import Metric
from petlbench.results.result import Memory
from petlbench.run.data import RunData, shared_images
from petlbench.training.evaluation import Labels, Logits

__all__ = ["describe_data", "describe_intervals", "describe_memory"]


def describe_intervals(
    data: RunData,
    external: RunData | None,
    outputs: Mapping[str, tuple[Labels, Logits]],
    metrics: Sequence[Metric],
) -> dict[str, Any]:
    """Give the intervals of the scores of each split, patients or lesions counted once.

    Args:
        data: The images of the run's own dataset.
        external: Those of its external test set, which are the split ``external``.
        outputs: Labels (N,) and logits (N, C) by split, in the order of the split's indices.
        metrics: The scores.
    """
    records = {side: data.records(side) for side in SPLITS} | {"external": external.records("test") if external else []}
    return {
        split: compute_intervals(labels, logits, [record.group for record in records[split]], metrics=metrics)
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
    data: RunData,
    normalization: Normalization,
    external: RunData | None,
    source: FeatureSource,
    metrics: Sequence[Metric],
) -> dict[str, Any]:
    """Count the images by split and class, name what was skipped, and say what was made of the images.

    Args:
        data: The images that the run learns from.
        normalization: How colours are normalised.
        external: The external test set, where there is one.
        source: Gives the frozen features of the images that the run learns from.
        metrics: The scores; which form those with several have here depends on the classes.
    """
    found = {**_describe_images(data), "normalization": asdict(normalization)}
    found["score_forms"] = {metric.name: metric.form for metric in metrics if metric.form}
    if isinstance(source, CachedFeatures):
        each = source.store.bytes_an_image
        found["features"] = {"bytes_per_image": each, "bytes": each * len(data.dataset.records)}
    if external is not None:
        found["external"] = {**_describe_images(external), "shared_images": shared_images(external, data)}
    return found


def _describe_images(data: RunData) -> dict[str, Any]:
    card, classes = data.dataset.card, data.dataset.classes
    counts = {side: Counter(classes[record.label] for record in data.records(side)) for side in SPLITS}
    return {
        "title": card.title,
        "card_version": card.version,
        "synthetic": card.synthetic,
        "task": data.dataset.task.name,
        "classes": list(classes),
        "images": {side: counts[side].total() for side in SPLITS},
        "images_by_class": {side: dict(counts[side]) for side in SPLITS},
        "grouping": card.grouping,
        "skipped": list(data.skipped),
        "notes": list(data.dataset.notes),
    }
