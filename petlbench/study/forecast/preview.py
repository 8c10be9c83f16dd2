"""What a study would take, run by run, before any of it is carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.environment import free_memory
from petlbench.core.errors import InputError
from petlbench.core.process_pool import Workers
from petlbench.core.units import readable_size
from petlbench.memory.predict import predict_training
from petlbench.models.build import assemble
from petlbench.results.result import Memory, iter_results
from petlbench.run.options import RunContext, RunOptions
from petlbench.run.resolve import ResolvedRun, resolve_config
from petlbench.study.existing import stored_result
from petlbench.study.forecast.dry_run import PreloadedBytes, dry_run
from petlbench.study.grid import PlannedRun

__all__ = ["Preview", "preview_grid"]

# What `petlbench.features.quota` says where features find no room.
_NO_ROOM = ("no_room", "cache_too_small", "not_writable")

# What a run's time does not depend on.
_FREE = ("seed",)
_FREE_OF_TRAINING = ("lr", "weight_decay")


@dataclass(frozen=True)
class Preview:
    """What the runs of one method on one dataset would take, each.

    Args:
        method: Name of the method.
        dataset: The dataset.
        runs: How many there are.
        finished: How many of them are finished already.
        memory: The predicted peak of a training step.
        available: Bytes that the device has; None where that is not known.
        seconds: Mean time of earlier runs that differ in seed, learning rate and weight decay alone; None without any.
        preloaded: What preloaded features would take.
        problems: Why it cannot be carried out here, one sentence each.
        refusal: Why it cannot be had at all.
    """

    method: str
    dataset: str
    runs: int
    finished: int = 0
    memory: Memory | None = None
    available: int | None = None
    seconds: float | None = None
    preloaded: PreloadedBytes = field(default_factory=PreloadedBytes)
    problems: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def peak(self) -> int | None:
        """Bytes that decide what fits: the process's on CUDA, what is allocated elsewhere."""
        if self.memory is None:
            return None
        return self.memory.process if self.memory.process is not None else self.memory.allocated

    @property
    def fits(self) -> bool | None:
        """Whether the peak fits the device; None where either is not known."""
        if self.peak is None or self.available is None:
            return None
        return self.peak <= self.available

    def document(self) -> dict[str, Any]:
        """The preview as plain values."""
        return {
            "method": self.method,
            "dataset": self.dataset,
            "runs": self.runs,
            "finished": self.finished,
            "memory": None if self.memory is None else self.memory.model_dump(mode="json"),
            "available": self.available,
            "fits": self.fits,
            "seconds": self.seconds,
            "feature_cache": asdict(self.preloaded),
            "problems": list(self.problems),
            "refusal": self.refusal,
        }


def preview_grid(plans: Sequence[PlannedRun], context: RunContext, *, workers: Workers | None = None) -> list[Preview]:
    """Predict what a study would take.

    Args:
        plans: Its combinations.
        context: Where the runs would read and write, and who is told what goes on.
        workers: Who predicts; None for this process.

    Returns:
        One preview for each method and dataset, in the order of the combinations.
    """
    options, progress, cells = context.options, context.progress, _cells(plans)
    seconds = _known_seconds(options.output)
    progress.phase("predicting memory", len(cells))
    # Asked here: a worker was forked from this process, and must not touch the device.
    devices = {str(run.config.device) for run in plans if run.config is not None}
    memory = {device: _available(device) for device in devices}
    preview = partial(_preview, options=options, seconds=seconds, available=memory)
    return (workers or Workers()).map(preview, cells, progress.advance)


def _cells(plans: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    cells: dict[tuple[str, str], list[PlannedRun]] = {}
    for planned in plans:
        cells.setdefault((planned.method, planned.dataset), []).append(planned)
    return list(cells.values())


def _preview(
    plans: Sequence[PlannedRun],
    *,
    options: RunOptions,
    seconds: Mapping[str, Sequence[float]],
    available: Mapping[str, int | None],
) -> Preview:
    first = plans[0]
    if first.config is None:
        return Preview(first.method, first.dataset, len(plans), refusal=first.refusal)
    config, problems = first.config, []
    memory, preloaded = None, PreloadedBytes()
    try:
        plan = dry_run(_resolve(config, options), options.cache)
        memory, preloaded = plan.memory, plan.preloaded
    except InputError as error:
        problems.append(error.message)
        if error.kind in _NO_ROOM:
            memory = _memory(_resolve(config, options))
    except Exception as error:  # one method's defect is a line of the table, and the others stand
        problems.append(f"{type(error).__name__}: {error}")
    usual = seconds.get(_alike(config))
    preview = Preview(
        first.method,
        first.dataset,
        len(plans),
        finished=sum(_is_finished(run, options.output) for run in plans),
        memory=memory,
        available=available[config.device],
        seconds=fmean(usual) if usual else None,
        preloaded=preloaded,
    )
    if preview.fits is False and preview.peak is not None and preview.available is not None:
        have = readable_size(preview.available)
        problems.append(f"a step takes {readable_size(preview.peak)}, and {config.device} has {have}")
    return replace(preview, problems=tuple(problems))


def _resolve(config: RunConfig, options: RunOptions) -> ResolvedRun:
    return resolve_config(config, _catalog(options.catalogs), options.data_root)


def _memory(run: ResolvedRun) -> Memory:
    assembled = assemble(run.config, run.method, len(run.card.classes), torch.device("meta"))
    return predict_training(run.config, assembled)


@cache
def _catalog(folders: tuple[Path, ...]) -> Catalog:
    return Catalog(folders)


def _is_finished(planned: PlannedRun, output: Path) -> bool:
    result = stored_result(output, planned.config.run_id) if planned.config is not None else None
    return result is not None and result.status == "finished"


def _known_seconds(output: Path) -> dict[str, list[float]]:
    """Times of the finished runs, by what a run's time depends on."""
    seconds: dict[str, list[float]] = {}
    for result in iter_results(output):
        if result.status == "finished" and "total" in result.timing:
            seconds.setdefault(_alike(result.config), []).append(result.timing["total"])
    return seconds


def _alike(config: RunConfig) -> str:
    training = config.training.model_copy(update=dict.fromkeys(_FREE_OF_TRAINING, 0.0))
    return config.model_copy(update={**dict.fromkeys(_FREE, 0), "training": training}).digest


def _available(device: str) -> int | None:
    """Bytes of memory that the device has; None for one that is not here."""
    if device == "cpu":
        return free_memory()
    if device == "cuda" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return None
