"""The options that say how a run is to be, which every command that starts runs shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from petlbench.cli.options import (
    cache_dir_option,
    cache_images_option,
    cache_size_option,
    catalog_option,
    data_root_option,
    output_option,
    setting_option,
)

__all__ = ["request_values", "run_options"]

F = TypeVar("F", bound=Callable[..., Any])

_TRAINING = ("epochs", "batch_size", "accumulate", "optimizer", "lr", "weight_decay")

_OPTIONS = (
    click.option("--backbone", help="timm name.  [default: the papers' ViT-B/16]"),
    click.option("--weights", default="default", show_default=True, help="default (the hub), none (random) or a file."),
    click.option("--image-size", type=int, help="Pixels.  [default: the card's, else the backbone's]"),
    click.option("--epochs", type=int, help="Passes over the training split.  [default: 20]"),
    click.option("--batch-size", type=int, help="Images a step.  [default: 16]"),
    click.option(
        "--accumulate",
        type=int,
        help="Pieces of a batch that go through one by one: less memory, same step.  [default: 1]",
    ),
    click.option("--optimizer", type=click.Choice(["adamw", "sgd"]), help="sgd: momentum 0.9.  [default: adamw]"),
    click.option("--lr", type=float, help="Peak learning rate.  [default: the method's]"),
    click.option("--weight-decay", type=float, help="Weight decay.  [default: the method's]"),
    click.option("--split", help="official, random, kfold:K/I or repeat:N/I.  [default: the card's]"),
    click.option("--split-seed", type=int, default=0, show_default=True, help="The same for all seeds of a study."),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True),
    click.option("--threads", type=int, help="Threads of one operator.  [default: cores, at most 8]"),
    click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True),
    click.option(
        "--attention-kernel",
        type=click.Choice(["auto", "eager", "fused"]),
        default="auto",
        show_default=True,
        help="Explicit attention or torch's fused kernels.",
    ),
    click.option("--checkpointing", is_flag=True, help="Compute blocks again in backward: less memory, more time."),
    click.option(
        "--normalize",
        type=click.Choice(["backbone", "card"]),
        default="backbone",
        show_default=True,
        help="Whose mean and standard deviation.",
    ),
    click.option(
        "--preload/--no-preload", default=None, help="Compute frozen features once.  [default: wherever the method can]"
    ),
    click.option(
        "--cache-precision",
        type=click.Choice(["fp32", "bf16", "fp16", "int8"]),
        help="In which preloaded features are kept.  [default: int8]",
    ),
    click.option("--skip-corrupt", is_flag=True, help="Leave unreadable images out."),
    click.option("--test-on", help="Another dataset of the same classes: an external test set, read once."),
    setting_option,
    data_root_option,
    cache_dir_option,
    cache_size_option,
    cache_images_option,
    output_option,
    click.option("--tracking-uri", help="MLflow: an address, or none.  [default: a file in the output folder]"),
    catalog_option,
)


def run_options(function: F) -> F:
    """Give a command all options of a run but its method, dataset and seed."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def request_values(asked: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """Sort what was asked for into the fields of `petlbench.run.resolve.Request`.

    Args:
        asked: The values of the options that are fields of a request or of its training, by name.
        training: Training settings given with ``--set``.

    Returns:
        Fields of a request; those that were left out are not among them.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    chosen = {name: given.pop(name) for name in _TRAINING if name in given}
    return {"training": {**training, **chosen}, **given}
