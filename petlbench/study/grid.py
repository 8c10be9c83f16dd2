"""Every combination of methods, datasets and seeds, resolved to the runs that they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.core.errors import InputError, PetlbenchError, unknown_name
from petlbench.core.validation import validate_settings
from petlbench.data.dataset import find_card
from petlbench.models.info import BackboneInfo
from petlbench.models.method import Method, load_method
from petlbench.models.registry import probe_backbone, resolve_backbone
from petlbench.run.resolve import Request, resolve
from petlbench.study.forecast.papers import printed_figures

__all__ = ["Case", "Grid", "PlannedRun", "Tuned", "Vary", "common_settings", "plan_cases"]


# What a config has of its dataset alone. The methods of a study share it, and a dataset is looked at once.
_OF_DATASET = ("dataset", "dataset_settings", "split", "test_on", "image_size", "normalize")

_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class PlannedRun:
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
        training: Settings of `petlbench.core.config.TrainingConfig` by name.
        method: Settings of the method by name.
    """

    training: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
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

    def plans(self, catalog: Catalog, data_root: Path) -> list[PlannedRun]:
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
        found: list[PlannedRun] = []
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


def resolve_alike(request: Request, config: RunConfig, catalog: Catalog, data_root: Path) -> RunConfig:
    """Return the run of a request on the dataset of another run, which is not looked at again.

    Args:
        request: What the user asked for; of its dataset nothing counts.
        config: The other run.
        catalog: The catalogues.
        data_root: The folder below which the images of cards lie.

    Raises:
        InputError: When the settings do not go together.
    """
    without = replace(
        request, dataset=None, dataset_settings={}, test_on=None, normalize="backbone", image_size=config.image_size
    )
    alike = {name: getattr(config, name) for name in _OF_DATASET}
    return resolve(without, catalog, data_root).config.model_copy(update=alike)


class _Column:
    """All methods on one dataset; what the dataset says of a run is resolved with the first of them that can be had."""

    def __init__(
        self,
        matrix: Grid,
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

    def plans(self) -> list[PlannedRun]:
        return [planned for name in self._classes for planned in self._plans_of(name)]

    def _plans_of(self, name: str) -> Iterator[PlannedRun]:
        first = self._plan(name)
        for seed in self._matrix.seeds:
            config = first.config.model_copy(update={"seed": seed}) if first.config is not None else None
            yield replace(first, seed=seed, config=config)

    def _plan(self, name: str) -> PlannedRun:
        request = self._matrix.request_for(self._request, name)
        planned = PlannedRun(name, request.dataset or "", request.seed)
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
            self._first = resolve(
                self._without_preloading(request, method, info), self._catalog, self._data_root
            ).config
            return self._first
        info = probe_backbone(self._first.backbone, self._first.image_size)
        request = self._without_preloading(request, method, info)
        return resolve_alike(request, self._first, self._catalog, self._data_root)

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


Plain = int | float | str

_FIELDS = {
    "image-size": "image_size",
    "precision": "precision",
    "attention-kernel": "attention_kernel",
    "backbone": "backbone",
}
_TRAINING = {"batch-size": "batch_size", "accumulate": "accumulate", "optimizer": "optimizer"}
_OF_METHOD = "method."


@dataclass(frozen=True)
class Vary:
    """One thing that takes several values.

    Args:
        name: As on the command line: an option of a run, or ``method.KEY``.
        values: At least one, as they were written.
    """

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Vary:
        """Read ``NAME=V1,V2,...``.

        Raises:
            InputError: When it has another form, or names nothing that can be varied.
        """
        name, _, listed = (part.strip() for part in text.partition("="))
        values = tuple(dict.fromkeys(value.strip() for value in listed.split(",")))
        if not all(values):
            raise InputError(
                f"--vary {text}: not of the form NAME=V1,V2,...",
                hint="for example --vary image-size=224,384,512",
                kind="bad_setting",
            )
        if name not in {*_FIELDS, *_TRAINING} and not name.startswith(_OF_METHOD):
            raise unknown_name("name to vary", name, [*_FIELDS, *_TRAINING, f"{_OF_METHOD}KEY"])
        if name == "image-size":
            _check_pixels(values)
        return cls(name, values)

    def apply(self, request: Request, value: str) -> Request:
        """Put one of the values into a request."""
        if self.name in _TRAINING:
            return replace(request, training={**request.training, _TRAINING[self.name]: value})
        if self.name in _FIELDS:
            given: Any = int(value) if self.name == "image-size" else value
            return replace(request, **{_FIELDS[self.name]: given})
        key = self.name.removeprefix(_OF_METHOD)
        return replace(request, method_settings={**request.method_settings, key: value})


@dataclass(frozen=True)
class Case:
    """One method in one setting.

    Args:
        request: What was asked for.
        backbone: timm's name with its weight tag.
        image_size: Height and width in pixels.
        training: How it would train.
        config: The run; None where the method cannot have it.
        varied: The value of what is varied, by its name; empty where nothing is.
        printed: Bytes that the papers print, by paper; None where the setting is not theirs.
        refused: Why there is no run.
        failed: Whether that is a defect rather than a refusal.
    """

    request: Request
    backbone: str
    image_size: int
    training: TrainingConfig
    config: RunConfig | None = None
    varied: Mapping[str, Plain] = field(default_factory=dict)
    printed: Mapping[str, int] | None = None
    refused: str | None = None
    failed: bool = False


def plan_cases(base: Request, methods: Sequence[str], vary: Vary | None, catalog: Catalog) -> list[Case]:
    """Resolve what was asked for into one case for each method and value.

    Among several methods, a setting of a method goes to those that have it, and preloading to those that can. A method
    that cannot work on the backbone, or refuses a setting that another one takes, gives a case that says so.

    Args:
        base: What was asked for; its method and dataset are not looked at.
        methods: Names of methods, each once.
        vary: What takes several values, or None.
        catalog: The catalogues.

    Returns:
        The cases: method by method, each with all values.

    Raises:
        InputError: When a name is unknown, a value is out of bounds, or nothing that was asked for goes together.
    """
    classes = {name: load_method(catalog.find("method", name)) for name in methods}
    values: Sequence[str | None] = vary.values if vary is not None else (None,)
    by_value = []
    for value in values:
        request = vary.apply(base, value) if vary is not None and value is not None else base
        varied = {vary.name: _plain(value)} if vary is not None and value is not None else {}
        by_value.append([replace(case, varied=varied) for case in _cases(request, classes, catalog)])
    return [case for cases in zip(*by_value, strict=True) for case in cases]


def common_settings(cases: Sequence[Case]) -> dict[str, Any]:
    """What holds for all cases; None for what differs between them."""
    return {name: _common(name, cases) for name in _settings(cases[0])}


def _settings(case: Case) -> dict[str, Any]:
    request, training = case.request, case.training
    return {
        "backbone": case.backbone,
        "image_size": case.image_size,
        "batch_size": training.batch_size,
        "precision": request.precision,
        "attention_kernel": request.attention_kernel,
        "optimizer": training.optimizer,
        "checkpointing": request.checkpointing,
        "accumulate": training.accumulate,
        "device": request.device,
        "preload": request.preload,
    }


def _common(name: str, cases: Sequence[Case]) -> Any:
    found = {_settings(case)[name] for case in cases}
    return found.pop() if len(found) == 1 else None


def _cases(request: Request, classes: Mapping[str, type[Method[Any]]], catalog: Catalog) -> Iterator[Case]:
    info = probe_backbone(resolve_backbone(request.backbone), request.image_size)
    training = validate_settings(TrainingConfig, {"lr": 1.0, "weight_decay": 0.0, **request.training}, "training")
    settings = _settings_by_method(request.method_settings, classes)
    printed = printed_figures(info.name, info.image_size, training.batch_size) if _is_plain(request, training) else {}
    for name, kind in classes.items():
        case = Case(
            replace(request, method=name, dataset=None, method_settings=settings[name]),
            info.name,
            info.image_size,
            training,
            printed=printed.get(name),
        )
        yield _resolved(case, kind, catalog, alone=len(classes) == 1)


def _settings_by_method(
    given: Mapping[str, Any], classes: Mapping[str, type[Method[Any]]]
) -> dict[str, dict[str, Any]]:
    """Sort settings to the methods that have them.

    Raises:
        InputError: When no method has one of them, or every method that does refuses what it is given.
    """
    if len(classes) == 1:
        return {name: dict(given) for name in classes}
    known = {name: kind.Settings.model_fields for name, kind in classes.items()}
    for key in given:
        if not any(key in fields for fields in known.values()):
            every = {field for fields in known.values() for field in fields}
            hint = unknown_name("setting", key, every).hint
            raise InputError(f"no method that was asked for has a setting '{key}'", hint=hint, kind="unknown_setting")
    sorted_ = {name: {key: given[key] for key in given if key in fields} for name, fields in known.items()}
    refused = [_refusal(classes[name], settings) for name, settings in sorted_.items() if settings]
    if refused and (first := refused[0]) is not None and all(refused):
        raise first
    return sorted_


def _refusal(kind: type[Method[Any]], settings: Mapping[str, Any]) -> InputError | None:
    try:
        kind.from_settings(settings)
    except InputError as error:
        return error
    return None


def _resolved(case: Case, kind: type[Method[Any]], catalog: Catalog, *, alone: bool) -> Case:
    """Close what is open in a case, or say why it cannot be had."""
    request = case.request
    refusal = _refusal(kind, request.method_settings)
    if refusal is not None:
        if alone:
            raise refusal
        return replace(case, refused=refusal.message)
    try:
        method = kind.from_settings(request.method_settings)
        info = probe_backbone(case.backbone, case.image_size)
        if (reason := method.refuse(info)) is not None:
            return replace(case, refused=reason)
        if not alone and request.preload and method.features(info) is None:
            request = replace(request, preload=None)
        return replace(case, config=resolve(request, catalog, Path()).config)
    except PetlbenchError:
        raise
    except Exception as error:  # a method's own code: the others are not to go down with it
        return replace(case, refused=f"{type(error).__name__}: {error}", failed=True)


def _is_plain(request: Request, training: TrainingConfig) -> bool:
    """Whether nothing was asked for that the papers did not do either."""
    usual = (training.optimizer, training.accumulate, request.checkpointing) == ("adamw", 1, False)
    return usual and not request.method_settings and request.preload is not False and request.device == "cuda"


def _check_pixels(values: Sequence[str]) -> None:
    for value in values:
        if not value.isdecimal():
            raise InputError(
                f"--vary image-size: '{value}' is no number of pixels",
                hint="for example --vary image-size=224,384,512",
                kind="bad_setting",
            )


def _plain(text: str) -> Plain:
    """A number where the text is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
