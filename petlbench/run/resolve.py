"""From what a user asked for to a run in which nothing is left open: config, method, backbone, dataset and views."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig, TrainingConfig, validate_settings
from petlbench.core.environment import available_devices, usable_cores
from petlbench.core.errors import InputError
from petlbench.core.request import Request
from petlbench.core.text import printable
from petlbench.core.user_files import user_path
from petlbench.data.card import DatasetCard
from petlbench.data.dataset import (
    EXTERNAL,
    DatasetInfo,
    describe_dataset,
    existing_path,
    external_settings,
    require_learned_classes,
)
from petlbench.data.record import Split
from petlbench.data.splits import SplitScheme
from petlbench.data.tasks.base import TaskType, metrics_of, task_of
from petlbench.data.views import Augmentation, Normalization, View, by_split, named_normalization
from petlbench.metrics.groups import AGGREGATES
from petlbench.models.info import BackboneInfo
from petlbench.models.method import Method, configured_method, load_method
from petlbench.models.registry import probe_backbone, resolve_backbone
from petlbench.models.weight_files import find_weights
from petlbench.run.cache_request import cache_form, cache_precision
from petlbench.run.extract_precision import extract_precision
from petlbench.training.loss import Loss
from petlbench.training.optim import check_optimizer
from petlbench.training.selection import LAST, metric_for
from petlbench.training.solve import unstepped

# More threads than this slow small operators down, and the count is part of the config.
_MOST_THREADS = 8


@dataclass(frozen=True)
class ResolvedRun:
    """A run and what it is made of; each part is built once and handed on.

    Args:
        config: The run.
        method: Its method, with its settings.
        backbone: What is known of its backbone.
        dataset: Its dataset; None where no image is to be read.
        loss: Its loss.
    """

    config: RunConfig
    method: Method[Any]
    backbone: BackboneInfo
    dataset: DatasetInfo | None
    loss: Loss

    @property
    def card(self) -> DatasetCard:
        """The card of the dataset.

        Raises:
            ValueError: When the run has no dataset.
        """
        if self.dataset is None:
            raise ValueError(f"{self.config.run_id} has no dataset")
        return self.dataset.card

    @cached_property
    def normalization(self) -> Normalization:
        """The mean and standard deviation that the run uses: the backbone's own, or on request the card's or others."""
        name = self.config.normalize
        if name not in ("backbone", "card"):
            return named_normalization(name)
        source = self.card if name == "card" else self.backbone
        if source.mean is None or source.std is None:
            raise _unknown_preprocessing(self.backbone.name, f"the card of {self.backbone.name} does not say it")
        return Normalization(source.mean, source.std, name)

    @cached_property
    def views(self) -> Mapping[str, View]:
        """The views of training by name; `View.without_augmentation` makes those for evaluation."""
        # The standard augmentation leaves mirror images out where they could change the label.
        standard = Augmentation() if self.card.mirror else Augmentation(mirror=0.0)
        augmentation = None if self.config.training.augment == "none" else standard
        return build_views(self.config, self.method, self.backbone, self.normalization, augmentation)

    @cached_property
    def preloaded_view(self) -> str | None:
        """The view that is read for the feature cache alone; None where nothing is preloaded."""
        frozen = self.method.features(self.backbone)
        return frozen.spec(self.backbone).view if frozen is not None and self.config.preload else None

    @cached_property
    def views_by_split(self) -> dict[Split, dict[str, View]]:
        """The views that are read of each split in every epoch: without the one whose features are preloaded."""
        views = by_split({name: view for name, view in self.views.items() if name != self.preloaded_view})
        # Validation images that are trained on are read as training images are.
        return views if self.config.train_on == "train" else {**views, "val": views["train"]}


def resolve(request: Request, catalog: Catalog, data_root: Path) -> ResolvedRun:
    """Close every open choice and check what can be checked before anything is loaded.

    Raises:
        InputError: When a name is unknown, a value is out of bounds, or the parts do not go together.
    """
    request = _with_test_set(request)
    method = load_method(catalog.find("method", request.method)).from_settings(request.method_settings)
    dataset = _dataset(request, catalog, data_root)
    image_size = dataset.card.image_size if request.image_size is None and dataset is not None else request.image_size
    backbone = probe_backbone(resolve_backbone(request.backbone, catalog), image_size, catalog)
    _require_fit(request.method, method, backbone)
    preload, weights = _preload(request, method, backbone), _weights(request.weights)
    device = available_devices()[0] if request.device == "auto" else request.device
    threads = min(usable_cores(), _MOST_THREADS) if request.threads is None else request.threads
    values = {
        "method": request.method,
        "method_settings": method.settings.model_dump(mode="json"),
        "dataset": reference_of(request.dataset, catalog) if request.dataset is not None else "",
        "dataset_settings": _dataset_settings(request, dataset),
        "split": _split(request.split, dataset),
        "split_seed": request.split_seed,
        **_draw(request),
        "train_on": _train_on(request),
        "skip_corrupt": request.skip_corrupt,
        "test_on": _external(request, dataset, catalog, data_root),
        "aggregate": _aggregate(request, dataset, catalog),
        "backbone": backbone.name,
        "weights": weights,
        "image_size": backbone.image_size,
        "normalize": _normalize(request.normalize, backbone, weights, dataset),
        "training": _training(method, request, catalog, dataset),
        "preload": preload,
        "cache_precision": cache_precision(request, preload),
        "cache_form": cache_form(request, method, backbone, preload),
        "seed": request.seed,
        "device": device,
        "threads": threads,
        "precision": request.precision,
        "extract_precision": extract_precision(
            request, device, threads, backbone.width, extracts=method.features(backbone) is not None
        ),
        "attention_kernel": request.attention_kernel,
        "checkpointing": request.checkpointing,
        "compile": request.compile,
        "calibrate": _calibrate(request, dataset, catalog),
        "test_every_epoch": request.test_every_epoch,
    }
    config = validate_settings(RunConfig, values, "run")
    return ResolvedRun(config, method, backbone, dataset, catalog.load("loss", config.training.loss, Loss))


def _require_fit(name: str, method: Method[Any], backbone: BackboneInfo) -> None:
    if reason := method.refuse(backbone):
        raise InputError(
            f"{name} cannot adapt {backbone.name}: {reason}",
            hint=f"choose another backbone, or other settings (petlbench list methods --method {name})",
            kind="unsupported",
        )


def resolve_config(
    config: RunConfig, catalog: Catalog, data_root: Path, describe: Callable[..., DatasetInfo] = describe_dataset
) -> ResolvedRun:
    """Build what a config names: in the process that carries it out, or for one that is stored.

    Args:
        config: The run.
        catalog: The catalogues.
        data_root: The folder below which datasets lie.
        describe: `describe_dataset`, or what gives the same.

    Raises:
        InputError: When a name is unknown, or the dataset is not there or wrong.
    """
    method = configured_method(config, catalog)
    backbone = probe_backbone(config.backbone, config.image_size, catalog)
    dataset = describe(config.dataset, catalog=catalog, data_root=data_root, settings=config.dataset_settings)
    return ResolvedRun(config, method, backbone, dataset, catalog.load("loss", config.training.loss, Loss))


def build_views(
    config: RunConfig,
    method: Method[Any],
    backbone: BackboneInfo,
    normalization: Normalization,
    augmentation: Augmentation | None = None,
) -> Mapping[str, View]:
    """The views of a run by name.

    A view whose features are preloaded is never augmented: the backbone sees each image once.
    """
    frozen = method.features(backbone)
    fixed = frozen.spec(backbone).view if frozen is not None and config.preload else None
    views = {}
    for name, spec in method.views(backbone, config.image_size).items():
        augmented = spec.augment and name != fixed
        views[name] = View(spec.size, backbone.interpolation, normalization, augmentation if augmented else None)
    return views


def _with_test_set(request: Request) -> Request:
    """The request with the settings of its external test set where a config has them."""
    settings = {f"{EXTERNAL}{name}": value for name, value in request.test_set.items()}
    return replace(request, dataset_settings={**request.dataset_settings, **settings})


def _dataset(request: Request, catalog: Catalog, data_root: Path) -> DatasetInfo | None:
    if request.dataset is None:
        return None
    # A path that is there is opened under the name that the config has for it; one that is not is refused as given.
    is_there = existing_path(request.dataset) is not None
    name = reference_of(request.dataset, catalog) if is_there else request.dataset
    return describe_dataset(name, catalog=catalog, data_root=data_root, settings=request.dataset_settings)


def _dataset_settings(request: Request, dataset: DatasetInfo | None) -> dict[str, Any]:
    """The dataset's own settings, complete, and what is set for an external test set."""
    own = {} if dataset is None else dataset.settings
    with external_settings(request.dataset_settings) as others:
        return {**own, **{f"{EXTERNAL}{name}": value for name, value in others.items()}}


def _external(request: Request, dataset: DatasetInfo | None, catalog: Catalog, data_root: Path) -> str:
    with external_settings(request.dataset_settings) as settings:
        if request.test_on is None or dataset is None:
            if settings:
                message = f"--test-set {next(iter(settings))} is a setting of an external test set, and there is none"
                raise InputError(message, hint="name one with --test-on", kind="bad_setting")
            return ""
        external = describe_dataset(request.test_on, catalog=catalog, data_root=data_root, settings=settings)
    require_learned_classes(external.name, external.card.classes, dataset.card.classes)
    return reference_of(request.test_on, catalog)


def _aggregate(request: Request, dataset: DatasetInfo | None, catalog: Catalog) -> str:
    if dataset is not None:
        task = task_of(dataset.card, catalog)
        if request.aggregate in AGGREGATES and request.aggregate not in task.groups.aggregates:
            raise InputError(
                f"--aggregate {request.aggregate}: predictions of the task '{task.name}' are not put together so",
                hint=f"choose {', '.join(task.groups.aggregates)}",
                kind="bad_setting",
            )
    return request.aggregate


def _calibrate(request: Request, dataset: DatasetInfo | None, catalog: Catalog) -> str:
    if request.calibrate != "none" and dataset is not None:
        task = task_of(dataset.card, catalog)
        if not task.answer.fractions:
            raise InputError(
                f"--calibrate {request.calibrate}: a run on {dataset.name} gives no probabilities, as its task is "
                f"{task.title}",
                hint="leave --calibrate out",
                kind="bad_setting",
            )
    return request.calibrate


def reference_of(dataset: str, catalog: Catalog) -> str:
    """What a config calls a dataset: its name in the catalogue, or else its absolute path."""
    return dataset if dataset in catalog.entries("dataset") else str(user_path(dataset, what="--dataset").resolve())


def _split(split: str | None, dataset: DatasetInfo | None) -> str:
    card_split = dataset.card.split if dataset is not None else "random"  # without a dataset nothing is split
    return str(SplitScheme.parse(card_split if split is None else split))


def _draw(request: Request) -> dict[str, Any]:
    """The draw of few labels; where nothing is drawn, all draws are one and the same run."""
    shots, fraction = request.shots or 0, 1 if request.train_fraction is None else request.train_fraction
    if shots and fraction != 1:
        raise InputError(
            f"--shots {shots} and --train-fraction {fraction} exclude each other",
            hint="draw so many images of each class, or a share of all",
            kind="bad_setting",
        )
    if not shots and fraction == 1:
        if (request.draw or request.shots_val) and request.shots is None and request.train_fraction is None:
            option = "--shots-val" if request.shots_val else f"--draw {request.draw}"
            hint = "add --shots K or --train-fraction F"
            raise InputError(f"{option}: nothing is drawn, all images are trained on", hint=hint, kind="bad_setting")
        return {}
    draw = request.draw or 0
    return {"shots": shots, "train_fraction": fraction, "draw": draw, "shots_val": request.shots_val}


def _train_on(request: Request) -> str:
    """What is trained on; where that is validation too, nothing may be asked of validation images."""
    select, fraction = request.training.get("select", LAST), request.train_fraction
    options = {
        f"--select {select} chooses the epoch by validation": select != LAST,
        f"--calibrate {request.calibrate} fits to validation": request.calibrate != "none",
        f"--shots {request.shots} trains on a part": bool(request.shots),
        f"--train-fraction {fraction} trains on a part": fraction not in (None, 1),
    }
    if request.train_on == "train+val" and (reason := next((why for why, is_set in options.items() if is_set), None)):
        option = reason.split()[0]
        message = f"{reason}, and --train-on train+val trains on all of training and validation"
        raise InputError(message, hint=f"leave {option} or --train-on out", kind="bad_setting")
    return request.train_on


def _weights(weights: str) -> str:
    if weights in ("default", "random", "none"):
        return "random" if weights == "none" else weights
    path = user_path(weights, what="--weights").resolve()
    find_weights(path)
    return str(path)


def _normalize(name: str | None, backbone: BackboneInfo, weights: str, dataset: DatasetInfo | None) -> str:
    """What the config says of mean and deviation; a guess at what weights expect is refused."""
    if name is None:
        if weights == "random":  # such weights expect nothing
            return "backbone" if backbone.mean is not None else "half"
        if backbone.card is None and weights != "default":
            raise _unknown_preprocessing(weights, f"a file does not say it, and {backbone.name} may be another model")
        name = "backbone"
    if name == "backbone" and backbone.mean is None:
        raise _unknown_preprocessing(backbone.name, "its card does not say it")
    if name == "card" and dataset is not None and (dataset.card.mean is None or dataset.card.std is None):
        raise InputError(
            f"--normalize card: the card of {dataset.name} gives no mean and standard deviation",
            hint="use --normalize backbone",
            kind="bad_setting",
        )
    if name not in ("backbone", "card") and re.fullmatch(r"[\d.,]+", name) and name.count(",") in (1, 5):
        named_normalization(name)
    return name


def _unknown_preprocessing(owner: str, reason: str) -> InputError:
    return InputError(
        f"which mean and standard deviation {printable(owner)} expects is not known: {reason}",
        hint="say it with --normalize backbone (those of the name), imagenet, half, clip, none or M,S (two or six "
        "numbers), or name with --backbone a card (petlbench list backbones) or a folder that has its configuration",
        kind="unknown_preprocessing",
    )


def _training(method: Method[Any], request: Request, catalog: Catalog, dataset: DatasetInfo | None) -> TrainingConfig:
    defaults: dict[str, Any] = {name: getattr(method.defaults, name) for name in ("lr", "weight_decay", "decay")}
    if request.train_on == "train+val":
        defaults["select"] = LAST
    task = task_of(dataset.card, catalog) if dataset is not None else None
    if task is not None:
        defaults["loss"] = task.loss
    values = {**defaults, **request.training}
    if method.is_solved:
        values = unstepped(method.card.name, defaults, request.training)
    training = validate_settings(TrainingConfig, values, "training")
    check_optimizer(training.optimizer)
    loss = catalog.load("loss", training.loss, Loss)
    if task is not None and dataset is not None:
        _check_task(task, dataset.name, training, loss)
        metric_for(training.select, task, metrics_of(task, catalog))
    return training


def _check_task(task: TaskType, name: str, training: TrainingConfig, loss: Loss) -> None:
    if loss.takes != task.labels.form:
        raise InputError(
            f"--loss {loss.name} takes labels of the form '{loss.takes}'; those of {name} ({task.title}) are of the "
            f"form '{task.labels.form}'",
            hint=f"leave --loss out: the task's own is {task.loss}",
            kind="bad_setting",
        )
    of_classes = {
        f"class-weights {training.class_weights}": training.class_weights != "none",
        f"label-smoothing {training.label_smoothing:g}": training.label_smoothing > 0,
    }
    for option in (option for option, is_set in of_classes.items() if is_set and task.balanced is None):
        message = f"--{option}: the labels of {name} ({task.title}) are no classes"
        raise InputError(message, hint=f"leave --{option.partition(' ')[0]} out", kind="bad_setting")


def _preload(request: Request, method: Method[Any], info: BackboneInfo) -> bool:
    possible = method.features(info) is not None
    if request.preload and not possible:
        raise InputError(
            f"--preload: {request.method}, with these settings, trains from nothing that the frozen backbone says",
            hint="leave --preload out",
            kind="bad_setting",
        )
    return possible and method.preloads_by_default if request.preload is None else request.preload
