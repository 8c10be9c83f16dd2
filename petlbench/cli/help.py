"""Help in groups: what most people need first, and the rest on request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from petlbench.cli.output import say

_COMMON = (
    "method", "methods", "dataset", "datasets", "seed", "seeds", "suite", "protocol", "hours", "budget",
    "trials", "backbone", "image_size", "epochs", "batch_size", "lr", "settings", "output", "dry_run",
)  # fmt: skip
# An option that is named nowhere here is the command's own.
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "Data": (
        "split", "split_seed", "shots", "train_fraction", "draw", "shots_val", "skip_corrupt", "test_on", "test_set",
        "aggregate", "train_on", "augment", "class_weights", "data_root",
    ),
    "Backbone": ("weights", "normalize", "drop_path"),
    "Training": (
        "optimizer", "loss", "weight_decay", "decay", "schedule", "min_lr", "layer_decay", "ema_decay",
        "warmup_epochs", "warmup_lr", "label_smoothing", "clip_grad_norm", "drop_last", "select", "calibrate", "recipe",
    ),
    "Speed and memory": (
        "preload", "cache_precision", "cache_form", "cache_dir", "cache_size", "cache_images", "device", "threads",
        "precision", "extract_precision", "attention_kernel", "checkpointing", "compile", "accumulate",
        "measure_inference", "executor", "workers", "ray_address", "cpus_per_run", "gpus_per_run", "timeout",
    ),
    "Output": (
        "report", "preset", "from_sweep", "study", "tracking_uri", "catalog", "rerun", "accept", "verify",
        "retry_failed", "json",
    ),
}  # fmt: skip
_PLACE = {name: group for group, names in _GROUPS.items() for name in names}
_OWN = "This command"


class GroupedCommand(click.Command):
    """A command of many options, whose help shows the common ones; ``--help-all`` shows all, in groups."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        show = click.Option(
            ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_show, help="Show all options."
        )
        self.params.append(show)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the common options, and the others in groups where all are asked for."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Common", _OWN, *_GROUPS)}
        for option in self.get_params(ctx):
            if (record := option.get_help_record(ctx)) is not None:
                name = str(option.name)
                is_common = name in _COMMON or option.is_eager
                groups["Common" if is_common else _PLACE.get(name, _OWN)].append(record)
        shown = groups if ctx.meta.get(_ALL) else {"Common": groups["Common"]}
        for title, records in shown.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        hidden = sum(len(records) for title, records in groups.items() if title not in shown)
        if hidden:
            formatter.write_paragraph()
            formatter.write_text(f"{hidden} more options: {ctx.command_path} --help-all")


_ALL = "petlbench.help_all"


def _show(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_ALL] = True
        say(ctx.get_help())
        ctx.exit()
