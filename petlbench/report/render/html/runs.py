"""The runs of a report as a table of one row each, and what is known of each beside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from petlbench.report.document import Axis
from petlbench.results.table import Spread

__all__ = ["MEASURES", "Group", "Measure", "describe_runs", "group_runs", "pick"]

Run = Mapping[str, Any]

_SHOWN_SETTINGS = 8  # columns of settings that differ between runs
_NAMED_SETTINGS = 3  # settings in the name of a group


@dataclass(frozen=True)
class Measure:
    """A figure of a run that can be compared.

    Args:
        axis: What it is called on a page.
        path: Where it stands in ``result.json``, with dots.
        factor: From the unit there to the unit here.
        digits: Behind the point, where it is shown.
    """

    axis: Axis
    path: str
    factor: float = 1
    digits: int = 2

    def of(self, run: Run) -> float | None:
        """The figure in the axis' unit; None where the run has none."""
        value = pick(run, self.path)
        return None if value is None else float(value) * self.factor


MEASURES = (
    Measure(Axis("auc", "test AUC", "%", "linear", "higher"), "metrics.test.auc", 100),
    Measure(Axis("val_auc", "validation AUC", "%", "linear", "higher"), "metrics.val.auc", 100),
    Measure(Axis("accuracy", "test accuracy", "%", "linear", "higher"), "metrics.test.accuracy", 100),
    Measure(Axis("parameters", "learnable parameters", "%", "log", "lower"), "parameters.ratio", 100, 3),
    Measure(Axis("memory", "peak memory, allocated", "MiB", "log", "lower"), "memory.allocated", 2**-20, 1),
    Measure(Axis("reserved", "peak memory, reserved", "MiB", "log", "lower"), "memory.reserved", 2**-20, 1),
    Measure(Axis("process", "peak memory, process", "MiB", "log", "lower"), "memory.process", 2**-20, 1),
    Measure(Axis("time", "time of the run", "s", "log", "lower"), "timing.total", 1, 1),
    Measure(Axis("ppe", "PPE", "%", "linear", "higher"), "scores.ppe", 100),
    Measure(Axis("pme", "PME", "%", "linear", "higher"), "scores.pme", 100),
)


@dataclass(frozen=True)
class Group:
    """Finished runs that differ in their seeds alone.

    Args:
        title: The method, with the settings that tell it from other groups of the method on the dataset.
        method: The method.
        dataset: The dataset.
        source: Where its peak memory comes from; empty where there is none.
        runs: The runs.
    """

    title: str
    method: str
    dataset: str
    source: str
    runs: tuple[Run, ...]

    def spread(self, measure: Measure) -> Spread | None:
        """Mean and deviation over seeds; None where no run has the figure."""
        return Spread.of(map(measure.of, self.runs))

    def mean(self, measure: Measure) -> float | None:
        """The mean over seeds; None where no run has the figure."""
        spread = self.spread(measure)
        return None if spread is None else spread.mean


def pick(run: Run, path: str) -> Any:
    """The value at a path with dots; None where there is none."""
    value: Any = run
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def describe_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """Make the table of all runs: ``columns`` and ``rows``, of which each cell is a number, a text or None."""
    measures = [measure for measure in MEASURES if any(measure.of(run) is not None for run in runs)]
    settings = [_flat(run.get("config", {})) for run in runs]
    varied = _varied(settings)[:_SHOWN_SETTINGS]
    columns: list[dict[str, Any]] = [
        {"title": "method"},
        {"title": "dataset"},
        {"title": "seed", "digits": 0},
        {"title": "status"},
        *({"title": each.axis.heading, "better": each.axis.better, "digits": each.digits} for each in measures),
        *({"title": name} for name in ("memory source", *varied, "run")),
    ]
    rows = [
        [
            pick(run, "config.method"),
            pick(run, "config.dataset"),
            pick(run, "config.seed"),
            run.get("status"),
            *(measure.of(run) for measure in measures),
            pick(run, "memory.source"),
            *(setting.get(name) for name in varied),
            run.get("run_id"),
        ]
        for run, setting in zip(runs, settings, strict=True)
    ]
    return {"columns": columns, "rows": rows}


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put finished runs that differ in their seeds alone together, in the order in which they first appear."""
    members: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        if run.get("status") == "finished":
            names = (str(pick(run, "config.method")), str(pick(run, "config.dataset")))
            members.setdefault((*names, _setting(run)), []).append(run)
    configs = {key: _flat(group[0].get("config", {})) for key, group in members.items()}
    groups = []
    for (method, dataset, setting), group in members.items():
        config = configs[method, dataset, setting]
        varied = _varied([other for key, other in configs.items() if key[:2] == (method, dataset)])
        words = ", ".join(f"{name} {config.get(name)}" for name in varied[:_NAMED_SETTINGS])
        title, source = f"{method} ({words})" if words else method, str(pick(group[0], "memory.source") or "")
        groups.append(Group(title, method, dataset, source, tuple(group)))
    return groups


def _setting(run: Run) -> str:
    config = {key: value for key, value in run.get("config", {}).items() if key not in {"seed", "split_seed"}}
    return json.dumps([config, pick(run, "memory.source")], sort_keys=True, default=str)


def _varied(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of settings that do not have the same value everywhere; method, dataset and seed are no settings here."""
    names = dict.fromkeys(name for setting in settings for name in setting)
    skipped = {"method", "dataset", "seed", "split_seed"}
    return [name for name in names if name not in skipped and len({str(setting.get(name)) for setting in settings}) > 1]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings by name; one that is inside says enough: training.lr is known as lr."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, key)
        else:
            flat[key if prefix in {"", "training"} else f"{prefix.removesuffix('_settings')}.{key}"] = value
    return flat
