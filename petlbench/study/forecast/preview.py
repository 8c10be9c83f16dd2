"""What a run or a study would take, before any of it is carried out: no images, weights or training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
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
from petlbench.features.maintenance import CacheConfig, check_quota, free_bytes
from petlbench.memory.predict import predict_training
from petlbench.models.build import assemble, count_parameters
from petlbench.results.folder import readable_result
from petlbench.results.result import Memory, Parameters, iter_results
from petlbench.run.cache_form import bytes_by_form
from petlbench.run.options import RunContext, RunOptions
from petlbench.run.preload import plan_features
from petlbench.run.resolve import ResolvedRun, resolve_config
from petlbench.study.forecast.memory import peak_bytes, shared_catalog
from petlbench.study.planned_run import PlannedRun

# What `petlbench.features.maintenance` says where features find no room.
_NO_ROOM = ("no_room", "cache_too_small", "not_writable")


@dataclass(frozen=True)
class PreloadedBytes:
    """What preloaded features would take, in bytes; None where nothing is preloaded.

    Args:
        bytes_per_image: Size of one image's features.
        bytes: Size of all of them; None where the number of images is not known.
        free: Free bytes of the disk that the feature cache is on.
        form: The form in which they are kept.
        by_form: Size of one image's features in each form, where there are several.
    """

    bytes_per_image: int | None = None
    bytes: int | None = None
    free: int | None = None
    form: str | None = None
    by_form: Mapping[str, int] | None = None


@dataclass(frozen=True)
class DryRun:
    """What a run would take: exact counts, the predicted peak of its training step, and its preloaded features."""

    config: RunConfig
    parameters: Parameters
    memory: Memory
    preloaded: PreloadedBytes

    def document(self) -> dict[str, Any]:
        """The dry run as plain values."""
        parts = {name: getattr(self, name).model_dump(mode="json") for name in ("config", "parameters", "memory")}
        return {"run_id": self.config.run_id, **parts, "feature_cache": asdict(self.preloaded)}


def dry_run(run: ResolvedRun, cache: CacheConfig, catalog: Catalog) -> DryRun:
    """Return what a run would take, built on device ``meta``; its images need not be there.

    Raises:
        InputError: When preloaded features would find no room, as far as that can be said without the images.
    """
    assembled = assemble(run.config, run.method, len(run.card.classes), torch.device("meta"), catalog)
    preloaded = PreloadedBytes()
    store = plan_features(run.config, assembled.frozen, run.backbone, run.views, cache.folder)
    if store is not None:
        each, images = store.bytes_an_image, run.dataset.images if run.dataset is not None else None
        whole, free = None if images is None else each * images, free_bytes(cache.folder)
        preloaded = PreloadedBytes(each, whole, free, run.config.cache_form, bytes_by_form(run))
        if images is not None:
            # Which images are in the cache, nobody knows before they are read: as many as can be are taken to be.
            folder, cached = store.alike()
            check_quota(cache, folder, store.bytes_of(max(0, images - cached), spread_over=images))
    return DryRun(run.config, count_parameters(assembled), predict_training(run.config, assembled, run.loss), preloaded)


@dataclass(frozen=True)
class Preview:
    """What the runs of one method on one dataset, with one number of labels, would take, each.

    Args:
        part: Which part of the training split they are trained on; empty for all of it.
        runs: How many there are.
        finished: How many of them are finished already.
        memory: The predicted peak of a training step.
        available: Bytes that the device has; None where that is not known.
        seconds: Mean time of earlier runs that differ in seed, draw, learning rate and weight decay alone; None without
            any.
        preloaded: What preloaded features would take.
        problems: Why it cannot be carried out here, one sentence each.
        refusal: Why it cannot be had at all.
    """

    method: str
    dataset: str
    runs: int
    part: str = ""
    finished: int = 0
    memory: Memory | None = None
    available: int | None = None
    seconds: float | None = None
    preloaded: PreloadedBytes = field(default_factory=PreloadedBytes)
    problems: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def peak(self) -> int | None:
        """Bytes that decide what fits."""
        return None if self.memory is None or self.memory.allocated is None else peak_bytes(self.memory)

    @property
    def fits(self) -> bool | None:
        """Whether the peak fits the device; None where either is not known."""
        return None if self.peak is None or self.available is None else self.peak <= self.available

    def document(self) -> dict[str, Any]:
        """The preview as plain values."""
        names = ("method", "dataset", "part", "runs", "finished", "available", "fits", "seconds", "refusal")
        return {
            **{name: getattr(self, name) for name in names},
            "memory": None if self.memory is None else self.memory.model_dump(mode="json"),
            "feature_cache": asdict(self.preloaded),
            "problems": list(self.problems),
        }


def preview_grid(plans: Sequence[PlannedRun], context: RunContext, workers: Workers) -> list[Preview]:
    """Return what each method on each dataset would take, in the order of the combinations; the workers predict it."""
    by_cell: dict[tuple[str, str, str], list[PlannedRun]] = {}
    for planned in plans:
        part = planned.config.part if planned.config is not None else ""
        by_cell.setdefault((planned.method, planned.dataset, part), []).append(planned)
    options, progress, cells = context.options, context.progress, list(by_cell.values())
    seconds = _usual_seconds(options.output)
    progress.phase("predicting memory", len(cells))
    # Asked here: a worker was forked from this process, and must not touch the device.
    devices = {str(run.config.device) for run in plans if run.config is not None}
    memory = {device: _available(device) for device in devices}
    preview = partial(_preview, options=options, seconds=seconds, available=memory)
    return workers.map(preview, cells, progress.advance)


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
    catalog = shared_catalog(options.catalogs)
    try:
        run = resolve_config(config, catalog, options.data_root)
        plan = dry_run(run, options.cache, catalog)
        memory, preloaded = plan.memory, plan.preloaded
    except InputError as error:
        problems.append(error.message)
        if error.kind in _NO_ROOM:
            assembled = assemble(config, run.method, len(run.card.classes), torch.device("meta"), catalog)
            memory = predict_training(config, assembled, run.loss)
    except (Exception, SystemExit) as error:  # one method's defect is a line of the table, and the others stand
        problems.append(f"{type(error).__name__}: {error}")
    usual = seconds.get(_alike(config))
    results = [readable_result(options.output, run.config.run_id) for run in plans if run.config is not None]
    preview = Preview(
        first.method,
        first.dataset,
        len(plans),
        config.part,
        finished=sum(result is not None and result.status == "finished" for result in results),
        memory=memory,
        available=available[config.device],
        seconds=fmean(usual) if usual else None,
        preloaded=preloaded,
    )
    if preview.fits is False and preview.peak is not None and preview.available is not None:
        have = readable_size(preview.available)
        problems.append(f"a step takes {readable_size(preview.peak)}, and {config.device} has {have}")
    return replace(preview, problems=tuple(problems))


def _usual_seconds(output: Path) -> dict[str, list[float]]:
    """Times of the finished runs, by what a run's time depends on."""
    seconds: dict[str, list[float]] = {}
    for result in iter_results(output):
        if result.status == "finished" and "total" in result.timing:
            seconds.setdefault(_alike(result.config), []).append(result.timing["total"])
    return seconds


def _alike(config: RunConfig) -> str:
    """What a run's time depends on."""
    training = config.training.model_copy(update={"lr": 0.0, "weight_decay": 0.0})
    return config.model_copy(update={"seed": 0, "draw": 0, "training": training}).digest


def _available(device: str) -> int | None:
    if device == "cpu":
        return free_memory()
    if device == "cuda" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return None
