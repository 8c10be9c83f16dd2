"""The options that say where runs are carried out, which every command that starts many runs shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["executor_options"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True),
    click.option(
        "--workers",
        type=click.IntRange(0, 1024),
        default=1,
        show_default=True,
        help="Runs at the same time, each in a process of its own; 0 for this process.",
    ),
    click.option("--ray-address", metavar="ADDRESS", help="Of a Ray cluster.  [default: one of this machine]"),
    click.option("--cpus-per-run", type=click.FloatRange(0), default=1, show_default=True, help="For --executor ray."),
    click.option("--gpus-per-run", type=click.FloatRange(0), default=0, show_default=True, help="For --executor ray."),
    click.option(
        "--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Stop a run after that."
    ),
)


def executor_options(function: F) -> F:
    """Give a command the options of `petlbench.executor.open_executor`, and a time limit for each run."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
