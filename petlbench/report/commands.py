"""The commands that a report names: what to run so that a cell is not empty."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from petlbench.metrics.efficiency import REFERENCE
from petlbench.report.selection import common_settings
from petlbench.results.stored import Stored

__all__ = ["fill_command", "reference_command"]

_OPTIONS = {
    "backbone": "--backbone",
    "weights": "--weights",
    "image_size": "--image-size",
    "normalize": "--normalize",
    "training.epochs": "--epochs",
    "training.batch_size": "--batch-size",
    "training.accumulate": "--accumulate",
    "training.optimizer": "--optimizer",
    "precision": "--precision",
    "attention_kernel": "--attention-kernel",
    "device": "--device",
}
_DEFAULTS = {
    "weights": "default",
    "normalize": "backbone",
    "training.accumulate": 1,
    "training.optimizer": "adamw",
    "precision": "fp32",
    "attention_kernel": "auto",
}


def fill_command(
    methods: Iterable[str], datasets: Iterable[str], like: Sequence[Stored], output: str, report: str = ""
) -> str:
    """The command that runs what cells are missing.

    Args:
        methods: Methods that have an empty cell.
        datasets: Datasets that have one.
        report: Name of the report where its rows are more than methods; the command then runs all its rows.
        like: Runs whose settings are wanted.
        output: Folder of the results; empty for the default.
    """
    seeds = sorted({run.seed for run in like})
    paths = {run.dataset: str(run.config["dataset"]) for run in like}
    rows = ["--report", report] if report else ["--method", _listed(methods)]
    words = ["petlbench", "bench", *rows, "--dataset", _listed(paths.get(name, name) for name in datasets)]
    return shlex.join([*words, "--seed", _listed(map(str, seeds)), *_settings(like, output)])


def reference_command(like: Sequence[Stored], output: str) -> str:
    """The command of the run that PME refers to, in the settings of other runs."""
    words = ["petlbench", "run", "--method", REFERENCE, "--dataset", str(like[0].config["dataset"])]
    return shlex.join([*words, *_settings(like, output)])


def _settings(like: Sequence[Stored], output: str) -> list[str]:
    common = common_settings(like)
    words = [
        word
        for key, option in _OPTIONS.items()
        if common[key] is not None and common[key] != _DEFAULTS.get(key)
        for word in (option, str(common[key]))
    ]
    threads = {run.value("threads") for run in like}
    words += ["--threads", str(threads.pop())] if len(threads) == 1 else []
    words += ["--checkpointing"] if common["checkpointing"] else []
    return [*words, "--output", output] if output else words


def _listed(names: Iterable[str]) -> str:
    return ",".join(dict.fromkeys(names))
