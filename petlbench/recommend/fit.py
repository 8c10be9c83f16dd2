"""What is known before anything is trained: the validation images, what speaks against a table, parameters."""

from __future__ import annotations

from collections import Counter

import torch

from petlbench.data.splits import SplitScheme, assign_splits
from petlbench.models.build import assemble, count_parameters
from petlbench.models.method import load_method
from petlbench.run.data import opened_dataset
from petlbench.run.resolve import resolve
from petlbench.sweep.search import Search

FEW = 50
"""Validation images below which choosing by them is a matter of luck."""


def look_at_data(search: Search) -> tuple[int, list[str]]:
    """Return the number of validation images, and what speaks against any decision on this dataset.

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
    rare = min(dataset.by_class().items(), key=lambda item: item[1])
    if rare[1] < 10:
        notes.append(f"the class '{rare[0]}' has {rare[1]} images: scores of it are hints")
    if dataset.card.grouping not in {"none", "unavailable"} and not any(record.group for record in dataset.records):
        notes.append("no groups are known: images of one patient may lie on two sides of the split")
    return images["val"], notes


def learnable_share(search: Search) -> float:
    """Return the share of learnable parameters of a method at its defaults, a fraction."""
    config, catalog = search.config, search.context.catalog
    method = load_method(catalog.find("method", config.method)).from_settings(dict(config.method_settings))
    classes = len(opened_dataset(resolve(search.request, catalog, search.options.data_root), search.context).classes)
    return count_parameters(assemble(config, method, classes, torch.device("meta"))).ratio
