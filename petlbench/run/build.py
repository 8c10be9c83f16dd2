"""From a resolved run to its module."""

from __future__ import annotations

import torch

from petlbench.data.dataset import Dataset
from petlbench.memory.measure import MemoryMeter
from petlbench.models.build import Assembled, assemble
from petlbench.run.data import require_classes
from petlbench.run.failure import explained
from petlbench.run.options import RunContext
from petlbench.run.resolve import ResolvedRun


def build_module(
    run: ResolvedRun, context: RunContext, dataset: Dataset, device: torch.device, meter: MemoryMeter
) -> Assembled:
    """The adapted backbone of a run, on its device.

    Raises:
        InputError: When weights are wrong, or a method that looks at the training images lacks a class of them.
        RunError: When weights cannot be fetched.
    """
    with explained(run.config):
        with meter.phase("build"):
            classes, load = len(dataset.classes), context.parts.backbone
            assembled = assemble(run.config, run.method, classes, device, context.catalog, load=load)
        if assembled.backbone.weights:
            context.progress.say(assembled.backbone.weights)
        if assembled.adapted.prepare is not None:
            require_classes(dataset, run.config.method)
        return assembled
