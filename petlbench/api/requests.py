"""From keywords to the runs, searches and forecasts that they mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError, unknown_name
from petlbench.core.request import Request, request_of, with_training
from petlbench.data.dataset import DatasetInfo, describe_dataset, find_card
from petlbench.report.spec import Preset, ReportCard, load_report, load_suite, required_study
from petlbench.run.keywords import dataset_names, sort_options, take
from petlbench.run.options import RunOptions
from petlbench.study.executors.job import ExecutorOptions
from petlbench.study.grid import Grid, PlannedRun, Tuned
from petlbench.study.runner import plan_runs

if TYPE_CHECKING:
    from petlbench.report.kinds.memory import Forecast
    from petlbench.study.forecast.memory import Extras, Row
    from petlbench.study.grid import Vary
    from petlbench.sweep.sweep import SearchOutcome, SweepOptions
    from tools.published_memory import Comparison

Settings = Mapping[str, Mapping[str, Any]]

_TABLES = {"method": "method_settings", "dataset": "dataset_settings", "training": "training"}
# Which part of the training split is trained on: fields of a request that take several values in a study.
_PARTS = ("shots", "train_fraction")
# Classes of the data where none are named: as many as in the papers.
_CLASSES = 7


@dataclass(frozen=True)
class Execution:
    """How many runs are carried out.

    Args:
        executor: Where: ``local``, ``ray`` or one of your own.
        workers: How many at once, each in a process of its own; 0 for this process.
        ray_address: Of a Ray cluster; None for one of this machine.
        cpus_per_run: CPUs of a run on a cluster.
        gpus_per_run: GPUs of a run on a cluster.
        timeout: Seconds after which a run is stopped.
        retry_failed: Whether failed runs are tried again.
    """

    executor: str = "local"
    workers: int = 0
    ray_address: str | None = None
    cpus_per_run: float = 1
    gpus_per_run: float = 0
    timeout: float | None = None
    retry_failed: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that are no amounts."""
        for name in ("timeout", "cpus_per_run", "gpus_per_run", "workers"):
            value = getattr(self, name)
            if value is not None and not (0 <= value < math.inf and (value or name != "timeout")):
                message = f"--{name.replace('_', '-')} {value}: not a finite number of that"
                raise InputError(message, hint="leave it out, or give a number", kind="bad_setting")

    @property
    def limits(self) -> ExecutorOptions:
        """How much the executor may use."""
        return ExecutorOptions(self.workers, address=self.ray_address, cpus=self.cpus_per_run, gpus=self.gpus_per_run)


@dataclass(frozen=True)
class StudyRequest:
    """What a study is of.

    Args:
        methods: Names of methods, each once; None for those of a report, as with what follows.
        datasets: Datasets, each once.
        seeds: Seeds, each once.
        shots: Numbers of images of each class to train on; 0 for all.
        train_fraction: Shares of the training split.
        draw: Draws of these, from 0.
        study: The study's name; None for the report's, or ``bench``. Runs of few labels are studies of their own, whose
            names begin with it: ``bench.5-shot``, ``bench.10-percent``.
        report: A report whose runs these are; what is named beside it takes the place of its own choices.
        suite: The same of a suite, whose methods are those that are named.
        preset: Precision and attention kernel of the report.
        from_sweep: A sweep whose best settings are taken where none are given here.
        settings: Settings of the groups ``method``, ``dataset`` and ``training``, and of single methods and datasets by
            their names.
    """

    methods: list[str] | None = None
    datasets: list[str] | None = None
    seeds: list[int] | None = None
    shots: list[int] | None = None
    train_fraction: list[float] | None = None
    draw: list[int] | None = None
    study: str | None = None
    report: str | None = None
    suite: str | None = None
    preset: Preset = "any"
    from_sweep: str | None = None
    settings: Settings = field(default_factory=dict)

    @property
    def of(self) -> str | None:
        """The report or suite whose runs these are; None for neither."""
        if self.report is not None and self.suite is not None:
            message = "--report and --suite: runs are of one of them"
            raise InputError(message, hint="leave one of them out", kind="usage")
        return self.report or self.suite

    def grids(self, values: Mapping[str, Any], options: RunOptions) -> list[Grid]:
        """The grids that are meant: one of what is named, or those of the report."""
        matrices = self._matrices(Catalog(options.catalogs))
        if not matrices:
            which = "" if self.methods is None else f" of {', '.join(self.methods)}"
            message = f"report {self.of} needs no run{which}"
            raise InputError(message, hint="see petlbench report --help", kind="usage")
        parts = [(matrix, part) for matrix in matrices for part in self._parts(matrix)]
        return [self._grid(matrix, {**values, **part}, options) for matrix, part in parts]

    def _parts(self, matrix: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The parts of the training split that are trained on, as fields of a request: those named, or the report's."""
        named = {name: values for name in _PARTS if (values := getattr(self, name)) is not None}
        parts = [dict(zip(named, values, strict=True)) for values in product(*named.values())]
        parts = parts if named else matrix.get("parts", parts)
        if self.draw is not None and parts == [{}]:
            message, hint = "--draw: nothing is drawn, all images are trained on", "add --shots K or --train-fraction F"
            raise InputError(message, hint=hint, kind="bad_setting")
        return parts

    def _matrices(self, catalog: Catalog) -> list[Mapping[str, Any]]:
        """What is combined: ``methods``, ``datasets``, ``seeds``, and the report's own ``settings`` and ``request``."""
        if self.of is None:
            if not self.methods or not self.datasets:
                message, hint = "bench needs --method and --dataset, --suite or --report", "see petlbench bench --help"
                raise InputError(message, hint=hint, kind="usage")
            matrices: list[dict[str, Any]] = [{"methods": self.methods, "seeds": [0], "settings": {}, "request": {}}]
        else:
            matrices = self._required(load_suite if self.suite else load_report, catalog)
        named = {name: value for name in ("datasets", "seeds") if (value := getattr(self, name)) is not None}
        named |= {} if self.draw is None else {"draws": self.draw}
        methods = [[name for name in each["methods"] if name in (self.methods or [name])] for each in matrices]
        return [{**each, "methods": own, **named} for each, own in zip(matrices, methods, strict=True) if own]

    def _required(self, load: Callable[[Catalog, str], ReportCard], catalog: Catalog) -> list[dict[str, Any]]:
        """What the report needs; a suite is of any methods, those that are named."""
        card = load(catalog, self.of or "")
        matrices = required_study(card, self.preset)
        if not card.groups:
            return matrices
        if not (methods := self.methods or card.study.methods):
            message = f"the suite '{card.name}' has no methods of its own"
            raise InputError(message, hint="name some, for example --method full,linear,lora", kind="usage")
        return [{**each, "methods": methods} for each in matrices]

    def _grid(self, matrix: Mapping[str, Any], values: Mapping[str, Any], options: RunOptions) -> Grid:
        methods, datasets, catalog = matrix["methods"], matrix["datasets"], Catalog(options.catalogs)
        names = (*methods, *(find_card(each, catalog=catalog)[0] for each in datasets))
        groups = _by_group(self.settings, names)
        request = _request(values, matrix["request"], groups, "bench()")
        settings = {name: {**matrix["settings"].get(name, {}), **groups[name]} for name in names}
        tuned: Callable[[RunConfig, DatasetInfo | None], Tuned] | None = None
        if self.from_sweep is not None:
            from petlbench.sweep.winner import read_winner

            tuned = partial(read_winner, options.output, self.from_sweep)
        own = {name: values for name, values in settings.items() if values}
        draws, label = matrix.get("draws", ()), _label(request)
        return Grid(methods, datasets, matrix["seeds"], request, own, tuned, draws=draws, label=label)


@dataclass(frozen=True)
class SweepRequest:
    """What a sweep is of, beside its methods and datasets.

    Args:
        trials: Trials of every method; None for the sweep's own number.
        search_sizes: Whether the methods' sizes are searched, too; None for the sweep's own choice.
        test: Whether the winner is run on the sweep's seeds, and tested once on each.
        study: The study of the winners' runs; None for the sweep's name.
        storage: Address of the database of trials; None for a file in the output folder.
        settings: Settings of the groups ``method``, ``dataset`` and ``training``, and of single methods by their names;
            what is given is not searched.
    """

    trials: int | None = None
    search_sizes: bool | None = None
    test: bool = True
    study: str | None = None
    storage: str | None = None
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class StudyPlan:
    """Runs by study, and how they are carried out."""

    name: str
    runs: Mapping[str, list[PlannedRun]]
    options: RunOptions
    execution: Execution


def plan_study(methods: Any, datasets: Any, seeds: Iterable[int] | None, options: Mapping[str, Any]) -> StudyPlan:
    """The runs that the keywords of `bench` mean."""
    execution, run_options, catalog, values = _carried_out(options)
    request, values = take(StudyRequest, values)
    request = replace(
        request,
        methods=None if methods is None else _method_names(methods, catalog),
        datasets=None if datasets is None else dataset_names(datasets, run_options),
        seeds=None if seeds is None else list(dict.fromkeys(seeds)),
        shots=_several(request.shots),
        train_fraction=_several(request.train_fraction),
        draw=_several(request.draw),
    )
    name = request.study or request.of or "bench"
    return StudyPlan(name, plan_runs(name, request.grids(values, run_options), run_options), run_options, execution)


def plan_sweep(
    sweep: str, methods: Any, datasets: Any, options: Mapping[str, Any]
) -> tuple[list[SearchOutcome], SweepOptions]:
    """The searches that the keywords of `sweep` mean, and how they are carried out."""
    from petlbench.sweep.spec import load_sweep
    from petlbench.sweep.sweep import SweepOptions, plan_searches

    execution, run_options, catalog, values = _carried_out(options)
    request, values = take(SweepRequest, values)
    track = None if request.search_sizes is None else "tuned" if request.search_sizes else "matched"
    changes = {name: value for name, value in (("trials", request.trials), ("track", track)) if value is not None}
    card = load_sweep(catalog.find("sweep", sweep), **changes)
    names = _method_names(methods, catalog)
    groups = _by_group(request.settings, names)
    shared = _request(values, {}, groups, "sweep()")
    requests = [
        replace(shared, method=name, dataset=dataset, method_settings={**shared.method_settings, **groups[name]})
        for dataset in dataset_names(datasets, run_options)
        for name in names
    ]
    searches = plan_searches(sweep, card, requests, run_options, study_name=request.study, timeout=execution.timeout)
    how = SweepOptions(request.storage, execution.executor, execution.limits, request.test, execution.retry_failed)
    return searches, how


def _carried_out(options: Mapping[str, Any]) -> tuple[Execution, RunOptions, Catalog, dict[str, Any]]:
    execution, options = take(Execution, options)
    run_options, values = sort_options(options)
    catalog = Catalog(run_options.catalogs)
    catalog.find("executor", execution.executor)
    return execution, run_options, catalog, values


def _method_names(methods: str | Iterable[str], catalog: Catalog) -> list[str]:
    """The names of methods that stand for one, several or all; each once."""
    names = methods.split(",") if isinstance(methods, str) else list(methods)
    if names == ["all"]:
        return list(catalog.entries("method"))
    return list(dict.fromkeys(catalog.find("method", name.strip()).name for name in names))


def _several(values: Any) -> list[Any] | None:
    """One or several values as a list, each once; None where there are none."""
    return None if values is None else list(dict.fromkeys(values if isinstance(values, Iterable) else [values]))


def _label(request: Request) -> str:
    """What a study of a part of the training split is called behind its name; empty for all of it."""
    if request.shots:
        return f"{request.shots}-shot"
    fraction = 1 if request.train_fraction is None else request.train_fraction
    return "" if fraction == 1 else f"{100 * fraction:g}-percent"


def _by_group(settings: Settings, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Settings of every group: methods, datasets and the training, and single names; there are no others."""
    groups = (*_TABLES, *names)
    for group in settings:
        if group not in groups:
            raise unknown_name("setting group", group, groups)
    return {group: dict(settings.get(group, {})) for group in groups}


def _request(
    values: Mapping[str, Any], own: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]], origin: str
) -> Request:
    """What holds for all runs: values go before settings, and these before what a report has of its own."""
    own, training = with_training(own, origin), {**groups["training"], **values.get("training", {})}
    values = with_training({**values, "training": training}, origin)
    tables = {key: {**own.get(key, {}), **groups[name], **values.get(key, {})} for name, key in _TABLES.items()}
    return request_of({"method": "", **own, **values, **tables}, origin)


@dataclass(frozen=True)
class ForecastPlan:
    """The steps whose memory is predicted."""

    runs: Sequence[PlannedRun]
    classes: int
    extras: Extras
    folders: tuple[Path, ...]
    varied: Vary | None
    task: Mapping[str, Any]

    def forecast(self, rows: Sequence[Row], comparison: Comparison | None) -> Forecast:
        """What was predicted, with what holds for all of it."""
        from petlbench.report.kinds.memory import Forecast
        from petlbench.study.forecast.memory import LARGEST, common_settings

        config = common_settings(self.runs)
        config |= {
            **self.task,
            "context": self.extras.context if config["device"] == "cuda" else None,
            "budget": self.extras.budget,
            "largest_batch_size": LARGEST,
            "vary": {self.varied.name: list(self.varied.values)} if self.varied is not None else None,
        }
        return Forecast(rows, self.extras, config, self.varied, comparison)


def plan_forecast(
    methods: Any, dataset: str | None, classes: int | None, vary: str | None, options: Mapping[str, Any]
) -> ForecastPlan:
    """The steps that the keywords of `forecast_memory` mean."""
    from petlbench.study.forecast.memory import Extras
    from petlbench.study.grid import Vary

    run_options, values = sort_options(options)
    extras, values = take(Extras, values)
    catalog = Catalog(run_options.catalogs)
    names = _method_names(methods, catalog)
    varied = Vary.parse(vary) if vary is not None else None
    settings = {name: values.get(key, {}) for name, key in _TABLES.items()}
    name = "" if varied is None else varied.name
    if name and (values.get(name.replace("-", "_")) is not None or name.removeprefix("method.") in settings["method"]):
        option = f"--set {name}" if name.startswith("method.") else f"--{name}"
        raise InputError(f"{option} is given, and varied by --vary too", hint="leave one of them out", kind="usage")
    sized = {}
    if dataset is not None:
        if classes is not None:
            message = "--dataset and --classes exclude each other: a dataset has its own classes"
            raise InputError(message, hint="leave one of them out", kind="usage")
        info = describe_dataset(dataset, catalog=catalog, data_root=run_options.data_root, settings=settings["dataset"])
        classes, sized = len(info.card.classes), {"image_size": info.card.image_size}
    elif settings["dataset"]:
        message = "--set dataset.… goes with --dataset, which is not given"
        raise InputError(message, hint="add --dataset NAME", kind="usage")
    number = _CLASSES if classes is None else classes
    fixed = {"method": "", "weights": "random", "device": "cuda", **sized}
    request = request_of({**fixed, **values, "dataset_settings": {}}, "forecast_memory()")
    runs = Grid(names, (), (0,), request, vary=varied).plans(catalog, run_options.data_root)
    task = {"classes": number, "dataset": dataset, "settings": settings}
    return ForecastPlan(runs, number, extras, run_options.catalogs, varied, task)
