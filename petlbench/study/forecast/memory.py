"""The memory of many methods and settings, predicted side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import torch

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig, TrainingConfig, validate_settings
from petlbench.core.errors import InputError
from petlbench.core.interrupt import check_interrupt
from petlbench.core.process_pool import Workers
from petlbench.core.progress import Progress
from petlbench.features.quantization import DEFAULT_CACHE_PRECISION
from petlbench.memory.predict import CONTEXT, predict_inference, predict_training
from petlbench.memory.shape_cache import shared_shapes
from petlbench.models.build import Assembled, assemble
from petlbench.models.method import configured_method
from petlbench.models.registry import probe_backbone, resolve_backbone
from petlbench.results.result import InferenceMemory, Memory
from petlbench.study.forecast.papers import printed_figures
from petlbench.study.planned_run import PlannedRun

LARGEST = 4096
"""Batch sizes above this one are not looked at."""

SAVINGS = ("attention-kernel=fused", "precision=bf16", "checkpointing", "preload")
"""What could be switched to take less memory."""

# Every so many predictions the range is cut in half, whatever the line through two of its points says.
_HALVED = 3
_META = torch.device("meta")
_FIGURES = ("allocated", "reserved", "process")

shared_catalog = cache(Catalog)
"""The catalogues with the user's own folders, read once a process."""


@dataclass(frozen=True)
class Extras:
    """What is predicted beside the peak of training.

    Args:
        context: Bytes of the CUDA context.
        budget: Bytes that there are; None where nothing is to be fitted.
        inference: Whether the peak of predicting one batch is wanted.
        savings: Whether it is wanted what other settings would save.
    """

    context: int = CONTEXT
    budget: int | None = None
    inference: bool = False
    savings: bool = False


@dataclass(frozen=True)
class Row:
    """What was predicted for a run.

    Args:
        memory: The peak of a training step; None where there is none.
        inference: The peak of predicting one batch, where it was asked for.
        fits: Whether the run's batch size fits the budget, where there is one.
        max_batch_size: The largest batch size that does.
        savings: Bytes that each of `SAVINGS` would save; None for what is on already or cannot be had.
        refused: Why there are no figures.
        failed: Whether that is a defect rather than a refusal.
    """

    run: PlannedRun
    memory: Memory | None = None
    inference: InferenceMemory | None = None
    fits: bool | None = None
    max_batch_size: int | None = None
    savings: Mapping[str, int | None] | None = None
    refused: str | None = None
    failed: bool = False

    @property
    def printed(self) -> dict[str, int] | None:
        """Bytes that the papers print, by paper; None where something was asked for that they did not do either."""
        request, settings = self.run.request, _settings(self.run)
        is_usual = (settings["optimizer"], settings["accumulate"], settings["checkpointing"]) == ("adamw", 1, False)
        if not is_usual or request.method_settings or request.preload is False or request.device != "cuda":
            return None
        figures = printed_figures(settings["backbone"], settings["image_size"], settings["batch_size"])
        return figures.get(self.run.method)

    @property
    def figure(self) -> int | None:
        """Bytes that decide what fits."""
        return None if self.memory is None else peak_bytes(self.memory)

    def document(self, extras: Extras) -> dict[str, Any]:
        """The row as plain values, with what was asked for."""
        config = self.run.config
        row = {
            "method": self.run.method,
            **{name: getattr(self.memory, name, None) for name in (*_FIGURES, "parts")},
            "max_batch_size": self.max_batch_size,
            "fits": self.fits,
            "published": self.printed,
            "preloaded": config.preload if config is not None else None,
            "source": "predicted",
            "refused": self.refused,
            "failed": self.failed,
        }
        if self.run.varied:
            row["varied"] = self.run.varied
        if extras.inference:
            row["inference"] = {name: getattr(self.inference, name, None) for name in _FIGURES}
        if extras.savings:
            row["savings"] = self.savings
        return row


def predict_rows(
    runs: Sequence[PlannedRun],
    classes: int,
    extras: Extras,
    *,
    folders: Sequence[Path] = (),
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Return what every run takes, one row a run. A run that raises gives a row that says so.

    Args:
        runs: The runs.
        classes: Number of classes C.
        extras: What is predicted beside the peak of training.
        folders: Folders of the user's own catalogues.
        workers: Who predicts; None for this process.
        progress: Told what goes on.
    """
    progress = progress or Progress()
    progress.phase("predicting memory", len(runs))
    predict = partial(_predict, classes=classes, extras=extras, folders=tuple(folders))
    return (workers or Workers()).map(predict, runs, progress.advance)


def common_settings(runs: Sequence[PlannedRun]) -> dict[str, Any]:
    """What holds for all runs, by name; None for what differs between them."""
    settings = [_settings(run) for run in runs]
    by_name = {name: {values[name] for values in settings} for name in settings[0]}
    return {name: values.pop() if len(values) == 1 else None for name, values in by_name.items()}


def _settings(run: PlannedRun) -> dict[str, Any]:
    request = run.request
    backbone, image_size = _backbone(run)
    values = {"lr": 1.0, "weight_decay": 0.0, **request.training}
    training = validate_settings(TrainingConfig, values, "training")
    return {
        "backbone": backbone,
        "image_size": image_size,
        "batch_size": training.batch_size,
        "precision": request.precision,
        "attention_kernel": request.attention_kernel,
        "optimizer": training.optimizer,
        "checkpointing": request.checkpointing,
        "accumulate": training.accumulate,
        "device": request.device,
        "preload": request.preload,
    }


def _backbone(run: PlannedRun) -> tuple[str, int | None]:
    """The name and the pixels of a run's backbone; as they were asked for where the run was refused for them."""
    if run.config is not None:
        return run.config.backbone, run.config.image_size
    try:
        backbone = probe_backbone(resolve_backbone(run.request.backbone), run.request.image_size)
    except InputError:  # a card of the user's own, which is found with --catalog
        return run.request.backbone, run.request.image_size
    return backbone.name, backbone.image_size


def _predict(run: PlannedRun, *, classes: int, extras: Extras, folders: tuple[Path, ...]) -> Row:
    if run.config is None:
        return Row(run, refused=run.refusal, failed=run.is_defect)
    try:
        with shared_shapes():
            return _Prediction(run.config, shared_catalog(folders), classes, extras).row(run)
    except InputError as error:
        return Row(run, refused=error.message)
    except (Exception, SystemExit) as error:  # one method's defect is a line of the table, and the others stand
        return Row(run, refused=f"{type(error).__name__}: {error}", failed=True)


class _Prediction:
    """All predictions for one run; its parts are built once where they can be."""

    def __init__(self, config: RunConfig, catalog: Catalog, classes: int, extras: Extras) -> None:
        self._config = config
        self._catalog = catalog
        self._classes = classes
        self._extras = extras
        self._assembled = self._assemble(config)

    def row(self, run: PlannedRun) -> Row:
        extras, config = self._extras, self._config
        memory = self._training(config, self._assembled)
        if memory.allocated is None:
            reason = "it is solved from all training images at once, and how many there are decides what that takes"
            return Row(run, None, refused=reason)
        peak = peak_bytes(memory)
        largest = None if extras.budget is None else self._largest(peak, extras.budget)
        return Row(
            run,
            memory,
            inference=predict_inference(config, self._assembled, context=extras.context) if extras.inference else None,
            fits=None if extras.budget is None else peak <= extras.budget,
            max_batch_size=largest,
            savings=self._savings(peak) if extras.savings else None,
        )

    def _assemble(self, config: RunConfig) -> Assembled:
        return assemble(config, configured_method(config, self._catalog), self._classes, _META, self._catalog)

    def _training(self, config: RunConfig, assembled: Assembled) -> Memory:
        check_interrupt()
        memory = predict_training(config, assembled, context=self._extras.context)
        # They are left from the last step, and the next prediction begins without.
        assembled.adapted.module.zero_grad(set_to_none=True)
        return memory

    def _largest(self, peak: int, budget: int) -> int:
        training = self._config.training

        def need(size: int) -> int:
            changed = {"training": training.model_copy(update={"batch_size": size})}
            return peak_bytes(self._training(self._config.model_copy(update=changed), self._assembled))

        points = {training.batch_size: peak}
        return largest_batch_size(need, budget, predictions=points, smallest=training.accumulate)

    def _savings(self, peak: int) -> dict[str, int | None]:
        """Bytes that each of `SAVINGS` would save; None for what is on already or cannot be had."""
        config = self._config
        could_preload = self._assembled.frozen is not None and not config.preload
        changes: tuple[dict[str, Any] | None, ...] = (
            {"attention_kernel": "fused"} if config.attention_kernel == "eager" else None,
            {"precision": "bf16"} if config.precision == "fp32" else None,
            {"checkpointing": True} if not config.checkpointing else None,
            {"preload": True, "cache_precision": DEFAULT_CACHE_PRECISION} if could_preload else None,
        )
        savings: dict[str, int | None] = dict.fromkeys(SAVINGS)
        for name, change in zip(SAVINGS, changes, strict=True):
            if change is not None:
                other = config.model_copy(update=change)
                savings[name] = peak - peak_bytes(self._training(other, self._assemble(other)))
        return savings


def peak_bytes(memory: Memory) -> int:
    """Return the bytes that decide what fits: the process's on CUDA, what is allocated elsewhere."""
    return cast("int", memory.process if memory.process is not None else memory.allocated)


def largest_batch_size(
    need: Callable[[int], int],
    budget: int,
    *,
    predictions: Mapping[int, int],
    smallest: int = 1,
) -> int:
    """Return a batch size that fits while the next larger one does not: 0 where none fits, `LARGEST` where that does.

    Memory is close to linear in the batch size, so the next size to look at is where the line through two known ones
    meets the budget. Allocated memory rises with the batch size, and the answer is the largest that fits. Reserved
    memory rises too, but for steps: the allocator takes it in large pieces, so that one image more may happen to take a
    piece less. A larger batch size may then fit as well; none below the answer that was looked at did not.

    Args:
        need: Predicts the memory in bytes at a batch size.
        budget: Memory in bytes.
        predictions: Bytes by batch size, as they were predicted before.
        smallest: The smallest batch size there can be.
    """
    points = dict(predictions)

    def fits(size: int) -> bool:
        if size not in points:
            points[size] = need(size)
        return points[size] <= budget

    if not fits(smallest):
        return 0
    high = min((size for size, taken in points.items() if taken > budget), default=LARGEST + 1)
    low = max(size for size, taken in points.items() if taken <= budget and size < high)
    looks = 0
    while high - low > 1:
        looks += 1
        guess = (low + high) // 2 if looks % _HALVED == 0 else _crossing(points, low, high, budget)
        if fits(guess):
            low = guess
        else:
            high = guess
    return low


def _crossing(points: Mapping[int, int], low: int, high: int, budget: int) -> int:
    """A size between two others at which the line through known points meets the budget."""
    # Above every known point, the line is that through the two largest that fit.
    first, second = (low, high) if high in points else (max((size for size in points if size < low), default=0), low)
    if first not in points:
        return min(2 * low, high - 1)
    rise = (points[second] - points[first]) / (second - first)
    crossing = first + int((budget - points[first]) / rise) if rise > 0 else high
    return max(low + 1, min(crossing, high - 1))
