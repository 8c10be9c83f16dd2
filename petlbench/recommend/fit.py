"""What is known before anything is trained: the validation images, what speaks against a table, parameters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.data.splits import SplitScheme, assign_splits
from petlbench.data.tasks.base import TaskType, metrics_of
from petlbench.features.source import LiveFeatures, NoFeatures
from petlbench.memory.measure import open_meter
from petlbench.metrics.metric import Metric
from petlbench.models.build import Assembled, assemble, count_parameters
from petlbench.models.method import configured_method
from petlbench.run.data import opened_dataset
from petlbench.run.inference_cost import measure_inference
from petlbench.run.resolve import resolve
from petlbench.sweep.search import Search
from petlbench.training.evaluation import Predictor

FEW = 50
"""Validation images below which choosing by them is a matter of luck."""


@dataclass(frozen=True)
class Look:
    """What a dataset is before anything is trained.

    Args:
        task: Its task type.
        images: Number of its validation images.
        train_images: Number of its training images.
        notes: What speaks against any decision on it.
    """

    task: TaskType
    images: int
    train_images: int
    notes: Sequence[str]

    def metric(self, name: str, catalog: Catalog) -> Metric:
        """A score of the task of which more is better.

        Raises:
            InputError: When the task has no such score, or a race cannot be run by it.
        """
        metrics = {
            row.name: row for row in metrics_of(self.task, catalog) if row.direction == "higher" and row.unit == "%"
        }
        if name not in metrics:
            hint = f"give one of {', '.join(metrics)}" if metrics else "the task has no score that is a fraction"
            message = f"--metric {name}: {self.task.title} has no such score of which more is better"
            raise InputError(message, hint=hint, kind="bad_setting")
        return metrics[name]


def look_at_data(search: Search) -> Look:
    """Return what is known of the dataset of a search before anything is trained.

    Raises:
        InputError: When the images are not there, or cannot be split.
    """
    config, context = search.config, search.context
    dataset = opened_dataset(resolve(search.request, context.catalog, context.options.data_root), context)
    scheme, strata = SplitScheme.parse(config.split), dataset.task.strata
    sides = assign_splits(dataset.records, scheme, config.split_seed, classes=dataset.classes, strata=strata)
    images = Counter(sides)
    notes = list(dataset.notes)
    if images["val"] < FEW:
        notes.append(f"too few validation images: the method is chosen on {images['val']}, and {FEW} would be few")
    rare = min(dataset.by_class().items(), key=lambda item: item[1], default=("", 10))
    if rare[1] < 10:
        notes.append(f"the class '{rare[0]}' has {rare[1]} images: scores of it are hints")
    if dataset.card.grouping not in {"none", "unavailable"} and not any(record.group for record in dataset.records):
        notes.append("no groups are known: images of one patient may lie on two sides of the split")
    train_images = round(images["train"] * config.train_fraction)
    return Look(dataset.task, images["val"], train_images, notes)


def learnable_share(search: Search, classes: int) -> float:
    """Return the share of learnable parameters of a method at its defaults, a fraction, with so many classes."""
    return count_parameters(_assembled(search, search.config, classes, torch.device("meta"))).ratio


def latency(search: Search, classes: int) -> float:
    """Return the seconds that predicting one image takes on this machine, with a method's defaults.

    Weights are random: they do not change how long it takes.
    """
    config = search.config.model_copy(update={"weights": "random"})
    device = torch.device(config.device)
    assembled = _assembled(search, config, classes, device)
    frozen, info = assembled.frozen, assembled.backbone.info
    source = NoFeatures() if frozen is None else LiveFeatures(assembled.backbone, frozen, config.features_precision)
    views = {name: view.size for name, view in assembled.method.views(info, config.image_size).items()}
    predictor = Predictor(assembled.adapted.module, source, device, config.precision)
    cost = measure_inference(predictor, views, 1, open_meter(device))
    return math.inf if cost.latency is None else cost.latency


def _assembled(search: Search, config: RunConfig, classes: int, device: torch.device) -> Assembled:
    catalog = search.context.catalog
    return assemble(config, configured_method(config, catalog), classes, device, catalog)
