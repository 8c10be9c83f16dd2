"""The commands that a report names: what to run so that a cell is not empty."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from petlbench.metrics.efficiency import REFERENCE
from petlbench.report.inputs import ReportInputs
from petlbench.report.selection import common_settings
from petlbench.results.stored import Stored

__all__ = ["missing_commands"]

# Each stands behind the option of its name.
_OPTIONS = (
    *("backbone", "weights", "image_size", "normalize", "training.epochs", "training.batch_size"),
    *("training.accumulate", "training.optimizer", "precision", "attention_kernel", "device"),
)
_DEFAULTS = {
    "weights": "default",
    "normalize": "backbone",
    "training.accumulate": 1,
    "training.optimizer": "adamw",
    "precision": "fp32",
    "attention_kernel": "auto",
}


def missing_commands(inputs: ReportInputs, has_pme: bool) -> list[str]:
    """The commands that fill the empty cells of a table, in the settings of its other runs.

    Args:
        inputs: What the table is made from. Where its rows are more than methods, the command names the report.
        has_pme: Whether the table needs the run that PME refers to.
    """
    context, card = inputs.context, inputs.card
    runs, lines = context.grid.all_runs, context.grid.lines
    missing = [(line.method, name) for line in lines for name in context.grid.datasets if not line.runs.get(name)]
    commands = []
    if has_pme and context.missing_reference:
        commands.append(["run", "--method", REFERENCE, "--dataset", str(runs[0].config["dataset"])])
    if missing and runs:
        paths = {run.dataset: str(run.config["dataset"]) for run in runs}
        rows = ["--report", card.name] if card.variants else ["--method", _listed(method for method, _ in missing)]
        seeds = ["--seed", _listed(map(str, sorted({run.seed for run in runs})))]
        commands.append(["bench", *rows, "--dataset", _listed(paths.get(name, name) for _, name in missing), *seeds])
    output = [] if inputs.request.output is None else ["--output", str(inputs.request.output)]
    return [shlex.join(["petlbench", *words, *_settings(runs), *output]) for words in commands]


def _settings(runs: Sequence[Stored]) -> list[str]:
    common = common_settings(runs)
    words = [
        word
        for key in _OPTIONS
        if common[key] is not None and common[key] != _DEFAULTS.get(key)
        for word in (f"--{key.removeprefix('training.').replace('_', '-')}", str(common[key]))
    ]
    threads = {run.value("threads") for run in runs}
    words += ["--threads", str(threads.pop())] if len(threads) == 1 else []
    return [*words, "--checkpointing"] if common["checkpointing"] else words


def _listed(names: Iterable[str]) -> str:
    return ",".join(dict.fromkeys(names))
