"""Methods that are solved, not stepped: what is learned is found in one go, from all training images at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from petlbench.core.config import TrainingConfig
from petlbench.core.errors import InputError
from petlbench.data.loader import Batch
from petlbench.models.method import Inputs, Solve
from petlbench.training.step import Step

_HELD: Mapping[str, Any] = {"epochs": 1, "augment": "none"}
_PART = ("loss", "label_smoothing", "class_weights", "select", "batch_size")

OF_STEPS = frozenset(TrainingConfig.model_fields) - frozenset(_PART)
"""The training settings that play no part where no step is taken."""


def unstepped(method: str, defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The training settings of a method that is solved: one epoch, of images as they are.

    Args:
        method: The method's name.
        defaults: What holds of other settings, where nothing is said.
        settings: What was asked for, by name.

    Raises:
        InputError: When it sets something that plays no part.
    """
    fields = TrainingConfig.model_fields.items()
    held = {**{name: field.default for name, field in fields}, **defaults, **_HELD}
    for name in settings:
        if name in OF_STEPS and settings[name] != held[name]:
            raise InputError(
                f"training: {name} = {settings[name]!r} has no part where {method} is solved and takes no steps",
                hint=f"leave {name} out, or choose settings of {method} with which it takes steps",
                kind="bad_setting",
            )
    return {**defaults, **settings, **_HELD}


def solve(
    module: nn.Module, find: Solve, step: Step, batches: Iterable[Batch], on_value: Callable[[int], None]
) -> Tensor:
    """Find what is learned, and return the mean loss of the training images with it, a scalar.

    Args:
        module: ``forward(Inputs) -> logits``.
        find: Finds what it learns.
        step: Has the loss, and where features come from.
        batches: All training images, on the device.
        on_value: Told the number of each value of the loss, from 1, before it is computed.
    """
    inputs, labels = _gathered(step, batches)
    numbers, objective = itertools.count(1), step.objective.exact(labels)

    def loss(logits: Tensor) -> Tensor:
        on_value(next(numbers))
        return objective(logits)

    module.eval()
    find(inputs, loss)
    with torch.no_grad():
        return loss(module(inputs))


def _gathered(step: Step, batches: Iterable[Batch]) -> tuple[Inputs, Tensor]:
    """What the module takes of all images, and their labels, (N, ...)."""
    parts = [(step.source(batch), batch.labels) for batch in batches]
    inputs, labels = zip(*parts, strict=True)
    joined = (
        {name: torch.cat([each[name] for each in kind]) for name in kind[0]}
        for kind in ([each.views for each in inputs], [each.features for each in inputs])
    )
    return Inputs(*joined), torch.cat(labels)
