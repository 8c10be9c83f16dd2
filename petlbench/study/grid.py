"""The grid of a study: every combination of methods, datasets, seeds and a varied setting, resolved to runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError, PetlbenchError, unknown_name
from petlbench.core.request import AUTO_FORM, Request, Tuned
from petlbench.data.dataset import DatasetInfo, find_card
from petlbench.features.frozen import has_forms
from petlbench.features.maintenance import CacheConfig
from petlbench.models.method import Method, load_method
from petlbench.models.registry import probe_backbone, resolve_backbone
from petlbench.run.cache_form import settled
from petlbench.run.resolve import ResolvedRun, resolve
from petlbench.study.planned_run import Plain, PlannedRun
from petlbench.study.protocol import NO_BASIS, Basis

_FIELDS = ("image-size", "normalize", "precision", "attention-kernel", "backbone")
_TRAINING = ("batch-size", "accumulate", "optimizer")
_OF_METHOD = "method."


# What a config has of its dataset alone. The methods of a study share it, and a dataset is looked at once.
_OF_DATASET = ("dataset", "dataset_settings", "split", "test_on", "image_size", "normalize")

_LARGEST = {"seed": 2**32 - 1, "draw": 10**6}

Classes = Mapping[str, type[Method[Any]]]


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
            raise _refuse(f"{text}: not of the form NAME=V1,V2,...")
        if name not in {*_FIELDS, *_TRAINING} and not name.startswith(_OF_METHOD):
            raise unknown_name("name to vary", name, [*_FIELDS, *_TRAINING, f"{_OF_METHOD}KEY"])
        if name == "image-size":
            for value in values:
                if not value.isdecimal():
                    raise _refuse(f"image-size: '{value}' is no number of pixels")
        return cls(name, values)

    def refuse_beside(self, values: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse what is given once and varied, too.

        Args:
            values: Fields of a request and of its training that are given.
            settings: Settings that are given, of the groups ``method`` and ``training``.

        Raises:
            InputError: When the name is among them.
        """
        field, of_method = self.name.replace("-", "_"), self.name.startswith(_OF_METHOD)
        given = {**settings.get("training", {}), **values.get("training", {}), **values}
        own = settings.get("method", {}) if of_method else given
        if own.get(field.removeprefix(_OF_METHOD)) is not None:
            option = f"--set {self.name}" if of_method else f"--{self.name}"
            raise InputError(f"{option} is given, and varied by --vary too", hint="leave one of them out", kind="usage")

    def requests(self, request: Request) -> list[tuple[Request, dict[str, Plain]]]:
        """A request for each value, with the value by its name beside it."""
        return [(self._apply(request, value), {self.name: _plain(value)}) for value in self.values]

    def grids(self, grid: Grid) -> list[Grid]:
        """A grid for each value, which is in its label."""
        grids = []
        for request, values in self.requests(grid.request):
            label = re.sub(r"[^A-Za-z0-9]+", "-", f"{self.name}-{values[self.name]}").strip("-")
            grids.append(replace(grid, request=request, label=".".join(filter(None, [grid.label, label]))))
        return grids

    def _apply(self, request: Request, value: str) -> Request:
        field = self.name.replace("-", "_")
        if self.name in _TRAINING:
            return replace(request, training={**request.training, field: value})
        if self.name in _FIELDS:
            setting: Any = int(value) if self.name == "image-size" else value
            return replace(request, **{field: setting})
        key = self.name.removeprefix(_OF_METHOD)
        return replace(request, method_settings={**request.method_settings, key: value})


def _refuse(message: str) -> InputError:
    return InputError(f"--vary {message}", hint="for example --vary image-size=224,384,512", kind="bad_setting")


def _plain(text: str) -> Plain:
    """A number where the text is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True)
class Grid:
    """What is combined.

    Args:
        methods: Names of methods, each once.
        datasets: Datasets as `petlbench run --dataset` takes them, each once; empty where no image is to be read.
        seeds: Seeds, each once.
        request: What holds for all runs; its method, dataset and seed are not looked at.
        settings: Further settings of one method or one dataset, by its name.
        tuned: Gives what a search found best, or a recipe has, for a run at its method's defaults, whose dataset is the
            second argument.
        vary: A setting that takes several values; None for none.
        draws: Draws of few labels, each once; of the request's own where none are named.
        label: What tells its runs from those of the study's other grids, in a name; empty for none.
        basis: What holds where the request and what is tuned say nothing.
        cache: Where features are kept, for their form to be settled; None where nothing is carried out.
    """

    methods: Sequence[str]
    datasets: Sequence[str]
    seeds: Sequence[int]
    request: Request
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tuned: Callable[[RunConfig, DatasetInfo | None], Tuned] | None = None
    vary: Vary | None = None
    draws: Sequence[int] = ()
    label: str = ""
    basis: Basis = NO_BASIS
    cache: CacheConfig | None = None

    def plans(self, catalog: Catalog, data_root: Path) -> list[PlannedRun]:
        """Resolve every combination.

        Among several methods, a setting that holds for all goes to those that have it, and preloading to those that
        can. A method that cannot have a combination gives one that says so, and the others stand.

        Returns:
            The combinations: dataset by dataset, each method by method with all values and all seeds.

        Raises:
            InputError: When a name is unknown, or a setting is unknown or out of bounds.
        """
        for option, numbers in (("seed", self.seeds), ("draw", self.draws)):
            for number in numbers:
                if not 0 <= number <= _LARGEST[option]:
                    message = f"--{option} {number}: not between 0 and {_LARGEST[option]}"
                    raise InputError(message, hint=f"for example --{option} 0,1,2", kind=f"bad_{option}")
        classes = {name: load_method(catalog.find("method", name)) for name in self.methods}
        names = {dataset: find_card(dataset, catalog=catalog)[0] for dataset in self.datasets}
        runs: list[PlannedRun] = []
        for dataset in self.datasets or (None,):
            own = self.settings.get(names[dataset], {}) if dataset is not None else {}
            base = replace(self.request, dataset=dataset, dataset_settings={**self.request.dataset_settings, **own})
            varied = self.vary.requests(base) if self.vary is not None else [(base, {})]
            columns = [_Column(self, base, values, classes, catalog, data_root).plans() for base, values in varied]
            for first in (first for row in zip(*columns, strict=True) for first in row):
                for draw, seed in product(self._draws(first.config), self.seeds):
                    config = first.config and first.config.model_copy(update={"draw": draw, "seed": seed})
                    runs.append(replace(first, seed=seed, draw=draw, config=config))
        return runs

    def _draws(self, config: RunConfig | None) -> Sequence[int]:
        """The draws of a run; a single one where everything is trained on."""
        if config is None:
            return self.draws or (0,)
        return self.draws if self.draws and config.part else (config.draw,)


def resolve_alike(request: Request, config: RunConfig, catalog: Catalog, data_root: Path) -> RunConfig:
    """Return the run of a request, of whose dataset nothing counts, on that of another run; it is not looked at again.

    Raises:
        InputError: When the settings do not go together.
    """
    without = replace(
        request,
        dataset=None,
        dataset_settings={},
        test_on=None,
        test_set={},
        normalize="half",
        image_size=config.image_size,
        training={"loss": config.training.loss, **request.training},  # the task's own, where none is asked for
    )
    alike = {name: getattr(config, name) for name in _OF_DATASET}
    return resolve(without, catalog, data_root).config.model_copy(update=alike)


@dataclass
class _Column:
    """All methods on one dataset; what the dataset says of a run is resolved with the first of them that can be had."""

    grid: Grid
    request: Request
    varied: Mapping[str, Plain]
    classes: Classes
    catalog: Catalog
    data_root: Path
    first: ResolvedRun | None = None

    def __post_init__(self) -> None:
        dataset, size = self.request.dataset, self.request.image_size
        card = find_card(dataset, catalog=self.catalog)[1] if dataset is not None else None
        size = card.image_size if size is None and card is not None else size
        self.backbone = probe_backbone(resolve_backbone(self.request.backbone, self.catalog), size, self.catalog)

    def plans(self) -> list[PlannedRun]:
        """One combination a method, with the first seed."""
        settings = _sort_settings(self.request.method_settings, self.classes)
        return [self._plan(name, settings[name]) for name in self.classes]

    def _plan(self, name: str, settings: Mapping[str, Any]) -> PlannedRun:
        own = {**settings, **self.grid.settings.get(name, {})}
        request = replace(self.request, method=name, seed=self.grid.seeds[0], method_settings=own)
        run = PlannedRun(name, request.dataset or "", request.seed, request, varied=self.varied)
        try:
            refusal = _refusal_of_settings(self.classes[name], settings)
            if refusal is not None and len(self.classes) > 1:
                return replace(run, refusal=refusal.message)
            run = self._planned(run, Tuned())
            if self.grid.tuned is None or run.config is None or self.first is None:
                return run
            tuned = self.grid.tuned(run.config, self.first.dataset)
            if tuned.refusal:
                return replace(run, config=None, refusal=tuned.refusal, is_defect=tuned.failed)
            return self._planned(run, tuned)
        except PetlbenchError:
            raise
        except (Exception, SystemExit) as error:  # a method's own code: the others are not to go down with it
            return replace(run, refusal=f"{type(error).__name__}: {error}", is_defect=True)

    def _planned(self, run: PlannedRun, tuned: Tuned) -> PlannedRun:
        request, basis = run.request, self.grid.basis
        whole = basis.below(request, tuned)
        method = self.classes[run.method].from_settings(whole.method_settings)
        if (reason := method.refuse(self.backbone)) is not None:
            return replace(run, refusal=reason)
        whole = self._without_preloading(whole, method)
        if self.first is None:
            self.first = resolve(whole, self.catalog, self.data_root)
            config = self.first.config
        else:
            config = resolve_alike(whole, self.first.config, self.catalog, self.data_root)
        if self.grid.cache is not None:
            own = replace(self.first, config=config, method=method, backbone=self.backbone)
            config = settled(own, whole.cache_form, self.grid.cache)
        return replace(run, config=config, origin=basis.origin(request, tuned, config))

    def _without_preloading(self, request: Request, method: Method[Any]) -> Request:
        """Among several methods, preloading, its precisions and form go to those that can preload and have forms."""
        if len(self.classes) == 1:
            return request
        features = method.features(self.backbone)
        if features is None:
            return replace(request, preload=None, cache_precision=None, cache_form=AUTO_FORM, extract_precision=None)
        does = method.preloads_by_default if request.preload is None else request.preload
        request = request if does else replace(request, cache_precision=None)
        return request if does and has_forms(features) else replace(request, cache_form=AUTO_FORM)


def _sort_settings(settings: Mapping[str, Any], classes: Classes) -> dict[str, dict[str, Any]]:
    """Return for each of several methods the settings that it has; a single one gets all.

    Raises:
        InputError: When no method has one of them, or every method that does refuses its value.
    """
    if len(classes) == 1:
        return {name: dict(settings) for name in classes}
    fields = {name: kind.Settings.model_fields for name, kind in classes.items()}
    for key in settings:
        if not any(key in names for names in fields.values()):
            hint = unknown_name("setting", key, {name for names in fields.values() for name in names}).hint
            raise InputError(f"no method that was asked for has a setting '{key}'", hint=hint, kind="unknown_setting")
    by_method = {name: {key: settings[key] for key in settings if key in names} for name, names in fields.items()}
    refusals = [_refusal_of_settings(classes[name], values) for name, values in by_method.items() if values]
    if refusals and (first := refusals[0]) is not None and all(refusals):
        raise first
    return by_method


def _refusal_of_settings(kind: type[Method[Any]], settings: Mapping[str, Any]) -> InputError | None:
    try:
        kind.from_settings(settings)
    except InputError as error:
        return error
    return None
