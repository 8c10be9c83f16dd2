"""Every combination of methods, datasets and seeds, resolved to the runs that they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from petlbench.backbone import BackboneInfo, probe_backbone, resolve_backbone
from petlbench.catalog import Catalog
from petlbench.config import RunConfig
from petlbench.data.dataset import find_card
from petlbench.errors import InputError
from petlbench.method import Method, load_method
from petlbench.resolve import Request, resolve

__all__ = ["Matrix", "Planned", "Tuned"]

# What a config has of its dataset alone. The methods of a study share it, and a dataset is looked at once.
_OF_DATASET = ("dataset", "dataset_settings", "split", "test_on", "image_size", "normalize")

_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Planned:
    """One combination of a study.

    Args:
        method: Name of the method.
        dataset: The dataset as it was asked for.
        seed: Seed of the run.
        config: The run; None where the combination cannot be had.
        refusal: Why it cannot be had.
        is_defect: Whether that is a defect of the method's code rather than a refusal.
    """

    method: str
    dataset: str
    seed: int
    config: RunConfig | None = None
    refusal: str | None = None
    is_defect: bool = False


@dataclass(frozen=True)
class Tuned:
    """What a search found best for one method on one dataset; what was asked for by name goes before it.

    Args:
        training: Settings of `petlbench.config.TrainingConfig` by name.
        method: Settings of the method by name.
    """

    training: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Matrix:
    """What a study combines.

    Args:
        methods: Names of methods, each once.
        datasets: Datasets as `petlbench run --dataset` takes them, each once.
        seeds: Seeds, each once.
        request: What holds for all runs; its method, dataset and seed are not looked at.
        settings: Further settings of one method or one dataset, by its name.
        tuned: What a search found best, by method and dataset.
    """

    methods: Sequence[str]
    datasets: Sequence[str]
    seeds: Sequence[int]
    request: Request
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tuned: Mapping[tuple[str, str], Tuned] = field(default_factory=dict)

    def plans(self, catalog: Catalog, data_root: Path) -> list[Planned]:
        """Resolve every combination.

        A method that cannot have a combination gives one that says so, and the others stand.

        Args:
            catalog: The catalogues.
            data_root: The folder below which the images of cards lie.

        Returns:
            The combinations: dataset by dataset, each method by method with all its seeds.

        Raises:
            InputError: When a name is unknown, or a setting is unknown or out of bounds.
        """
        self._check_seeds()
        classes = {name: load_method(catalog.find("method", name)) for name in self.methods}
        names = {dataset: find_card(dataset, catalog=catalog)[0] for dataset in self.datasets}
        probe_backbone(resolve_backbone(self.request.backbone))
        found: list[Planned] = []
        for dataset, name in names.items():
            settings = {**self.request.dataset_settings, **self.settings.get(name, {})}
            request = replace(self.request, dataset=dataset, dataset_settings=settings)
            found += _Column(self, request, classes, catalog, data_root).plans()
        return found

    def request_for(self, base: Request, method: str) -> Request:
        """What is asked for of one method on the dataset of a request."""
        tuned = self.tuned.get((method, base.dataset or ""), Tuned())
        return replace(
            base,
            method=method,
            seed=self.seeds[0],
            training={**tuned.training, **base.training},
            method_settings={**tuned.method, **base.method_settings, **self.settings.get(method, {})},
        )

    def _check_seeds(self) -> None:
        for seed in self.seeds:
            if not 0 <= seed <= _LARGEST_SEED:
                raise InputError(
                    f"--seed {seed}: not between 0 and {_LARGEST_SEED}",
                    hint="for example --seed 0,1,2",
                    kind="bad_seed",
                )


class _Column:
    """All methods on one dataset; what the dataset says of a run is resolved with the first of them that can be had."""

    def __init__(
        self,
        matrix: Matrix,
        request: Request,
        classes: Mapping[str, type[Method[Any]]],
        catalog: Catalog,
        data_root: Path,
    ) -> None:
        self._matrix = matrix
        self._request = request
        self._classes = classes
        self._catalog = catalog
        self._data_root = data_root
        self._first: RunConfig | None = None

    def plans(self) -> list[Planned]:
        return [planned for name in self._classes for planned in self._plans_of(name)]

    def _plans_of(self, name: str) -> Iterator[Planned]:
        first = self._plan(name)
        for seed in self._matrix.seeds:
            config = first.config.model_copy(update={"seed": seed}) if first.config is not None else None
            yield replace(first, seed=seed, config=config)

    def _plan(self, name: str) -> Planned:
        request = self._matrix.request_for(self._request, name)
        planned = Planned(name, request.dataset or "", request.seed)
        try:
            method = self._classes[name].from_settings(request.method_settings)
            return replace(planned, config=self._resolve(request, method))
        except InputError as error:
            if error.kind != "unsupported":
                raise
            return replace(planned, refusal=error.message)
        except Exception as error:  # a method's own code: the others are not to go down with it
            return replace(planned, refusal=f"{type(error).__name__}: {error}", is_defect=True)

    def _resolve(self, request: Request, method: Method[Any]) -> RunConfig:
        if self._first is None:
            info = self._info(request, find_card(self._request.dataset or "", catalog=self._catalog)[1])
            self._first = resolve(self._without_preloading(request, method, info), self._catalog, self._data_root)
            return self._first
        info = probe_backbone(self._first.backbone, self._first.image_size)
        request = self._without_preloading(request, method, info)
        without = replace(
            request, dataset=None, dataset_settings={}, test_on=None, normalize="backbone", image_size=info.image_size
        )
        config = resolve(without, self._catalog, self._data_root)
        return config.model_copy(update={name: getattr(self._first, name) for name in _OF_DATASET})

    @staticmethod
    def _info(request: Request, card: Any) -> BackboneInfo:
        size = card.image_size if request.image_size is None and card is not None else request.image_size
        return probe_backbone(resolve_backbone(request.backbone), size)

    def _without_preloading(self, request: Request, method: Method[Any], info: BackboneInfo) -> Request:
        """Among several methods, preloading and its precision go to those that can preload."""
        if len(self._classes) == 1 or (request.preload is None and request.cache_precision is None):
            return request
        if method.features(info) is None:
            return replace(request, preload=None, cache_precision=None)
        does = method.preloads_by_default if request.preload is None else request.preload
        return request if does else replace(request, cache_precision=None)
