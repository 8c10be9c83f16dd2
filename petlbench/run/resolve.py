"""From what a user asked for to a run config in which nothing is left open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.core.environment import available_devices, usable_cores
from petlbench.core.errors import InputError
from petlbench.core.validation import validate_settings
from petlbench.data.dataset import DatasetInfo, describe_dataset, require_same_classes
from petlbench.data.splits import SplitScheme
from petlbench.data.tasks.base import task_of
from petlbench.features.precision import DEFAULT_CACHE_PRECISION
from petlbench.models.info import BackboneInfo
from petlbench.models.method import Method, load_method
from petlbench.models.registry import DEFAULT_BACKBONE, probe_backbone, resolve_backbone
from petlbench.models.weights import check_weights_file

__all__ = ["Request", "resolve"]

# More threads than this slow small operators down, and the count is part of the config.
_MOST_THREADS = 8


@dataclass(frozen=True)
class Request:
    """What a user asked for; None and what is left out take their defaults.

    Args:
        method: Name of the method.
        dataset: Name, folder, table or card; None where no image is to be read and the number of classes is known.
        backbone: timm name.
        weights: ``default``, ``none`` or a file.
        image_size: Side of the fine view in pixels.
        training: Settings of `TrainingConfig` by name.
        method_settings: Settings of the method by name.
        dataset_settings: Settings of the dataset by name.
        split: Split scheme.
        split_seed: Seed of the split.
        seed: Seed of the run.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: Threads of one operator.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        attention_kernel: ``auto``, ``eager`` or ``fused``.
        checkpointing: Whether transformer blocks are computed again in backward.
        normalize: ``backbone`` or ``card``.
        preload: Whether frozen features are computed once; None for wherever the method can.
        cache_precision: Precision in which they are kept; None for the default.
        skip_corrupt: Whether images that cannot be read are left out.
        test_on: Another dataset of the same classes, read once as an external test set.
    """

    method: str
    dataset: str | None = None
    backbone: str = DEFAULT_BACKBONE
    weights: str = "default"
    image_size: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    dataset_settings: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    split_seed: int = 0
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    precision: str = "fp32"
    attention_kernel: str = "auto"
    checkpointing: bool = False
    normalize: str = "backbone"
    preload: bool | None = None
    cache_precision: str | None = None
    skip_corrupt: bool = False
    test_on: str | None = None


def resolve(request: Request, catalog: Catalog, data_root: Path) -> RunConfig:
    """Close every open choice and check what can be checked before anything is loaded.

    Args:
        request: What the user asked for.
        catalog: The catalogues.
        data_root: The folder below which the images of cards lie.

    Raises:
        InputError: When a name is unknown, a value is out of bounds, or the parts do not go together.
    """
    method = load_method(catalog.find("method", request.method)).from_settings(request.method_settings)
    dataset = _dataset(request, catalog, data_root)
    image_size = dataset.card.image_size if request.image_size is None and dataset is not None else request.image_size
    info = probe_backbone(resolve_backbone(request.backbone), image_size)
    if reason := method.refuse(info):
        raise InputError(
            f"{request.method} cannot adapt {info.name}: {reason}",
            hint=f"choose another backbone, or other settings (petlbench list methods --method {request.method})",
            kind="unsupported",
        )
    preload = _preload(request, method, info)
    values = {
        "method": request.method,
        "method_settings": method.settings.model_dump(mode="json"),
        "dataset": _reference(request.dataset, catalog),
        "dataset_settings": dataset.settings if dataset is not None else {},
        "split": str(SplitScheme.parse(_split(request, dataset))),
        "split_seed": request.split_seed,
        "skip_corrupt": request.skip_corrupt,
        "test_on": _external(request, dataset, catalog, data_root),
        "backbone": info.name,
        "weights": _weights(request.weights),
        "image_size": info.image_size,
        "normalize": _normalize(request.normalize, dataset),
        "training": _training(method, request.training),
        "preload": preload,
        "cache_precision": _cache_precision(request, preload),
        "seed": request.seed,
        "device": available_devices()[0] if request.device == "auto" else request.device,
        "threads": min(usable_cores(), _MOST_THREADS) if request.threads is None else request.threads,
        "precision": request.precision,
        "attention_kernel": request.attention_kernel,
        "checkpointing": request.checkpointing,
    }
    return validate_settings(RunConfig, values, "run")


def _dataset(request: Request, catalog: Catalog, data_root: Path) -> DatasetInfo | None:
    if request.dataset is None:
        return None
    found = describe_dataset(request.dataset, catalog=catalog, data_root=data_root, settings=request.dataset_settings)
    task_of(found.name, found.card, catalog)
    return found


def _external(request: Request, dataset: DatasetInfo | None, catalog: Catalog, data_root: Path) -> str:
    if request.test_on is None or dataset is None:
        return ""
    external = describe_dataset(request.test_on, catalog=catalog, data_root=data_root, settings={})
    require_same_classes(external.name, external.classes, dataset.classes)
    return _reference(request.test_on, catalog)


def _split(request: Request, dataset: DatasetInfo | None) -> str:
    """The split that was asked for, else the card's; without a dataset there is nothing to split."""
    if request.split is None:
        return dataset.card.split if dataset is not None else "random"
    return request.split


def _reference(dataset: str | None, catalog: Catalog) -> str:
    if dataset is None:
        return ""
    return dataset if dataset in catalog.entries("dataset") else str(Path(dataset).expanduser().resolve())


def _weights(weights: str) -> str:
    if weights in ("default", "none"):
        return weights
    file = Path(weights).expanduser().resolve()
    check_weights_file(file)
    return str(file)


def _normalize(normalize: str, dataset: DatasetInfo | None) -> str:
    if normalize == "card" and dataset is not None and (dataset.card.mean is None or dataset.card.std is None):
        raise InputError(
            f"--normalize card: the card of {dataset.name} gives no mean and standard deviation",
            hint="use --normalize backbone",
            kind="bad_setting",
        )
    return normalize


def _training(method: Method[Any], given: Mapping[str, Any]) -> TrainingConfig:
    defaults = {"lr": method.defaults.lr, "weight_decay": method.defaults.weight_decay}
    return validate_settings(TrainingConfig, {**defaults, **given}, "training")


def _cache_precision(request: Request, preload: bool) -> str | None:
    if preload:
        return request.cache_precision or DEFAULT_CACHE_PRECISION
    if request.cache_precision is not None:
        raise InputError(
            f"--cache-precision {request.cache_precision}: nothing is preloaded",
            hint="leave it out, or choose a method and settings with preloading",
            kind="bad_setting",
        )
    return None


def _preload(request: Request, method: Method[Any], info: BackboneInfo) -> bool:
    possible = method.features(info) is not None
    if request.preload and not possible:
        raise InputError(
            f"--preload: {request.method}, with these settings, trains from nothing that the frozen backbone says",
            hint="leave --preload out",
            kind="bad_setting",
        )
    return possible and method.preloads_by_default if request.preload is None else request.preload
