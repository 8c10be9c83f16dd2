"""From keywords to the runs, searches and forecasts that they mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.catalog import Catalog, Folder
from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.core.request import Request, Tuned, request_of
from petlbench.data.dataset import DatasetInfo, find_card
from petlbench.report.spec import Preset, ReportCard, load_report, load_suite, required_study
from petlbench.report.study_page import page_program
from petlbench.run.cache_form import settled
from petlbench.run.keywords import Settings, by_group, common_request, dataset_names, merged_values, sort_options, take
from petlbench.run.options import RunContext, RunOptions
from petlbench.run.resolve import ResolvedRun, resolve
from petlbench.study.executors.job import ExecutorOptions
from petlbench.study.grid import Grid, Vary
from petlbench.study.planned_run import PlannedRun
from petlbench.study.protocol import Basis, ProtocolCard, load_protocol
from petlbench.study.recipe import recipe_settings, require_recipe
from petlbench.study.runner import plan_runs

if TYPE_CHECKING:
    from petlbench.models.method import Method
    from petlbench.sweep.sweep import SearchOutcome, SweepOptions

# Which part of the training split is trained on: fields of a request that take several values in a study.
_PARTS = ("shots", "train_fraction")


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
        protocol: Name of a protocol, or the path of its file; what is given beside it goes before its fields.
        recipe: Name of the recipes that methods take their settings from, instead of a search.
        vary: ``NAME=V1,V2,...``: a setting that takes several values. Runs of each are a study of their own, whose name
            begins with this one's: ``bench.normalize-half``.
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
    protocol: str | None = None
    recipe: str | None = None
    vary: str | None = None
    settings: Settings = field(default_factory=dict)

    @property
    def of(self) -> str | None:
        """The report or suite whose runs these are; None for neither."""
        return self.report or self.suite

    def grids(self, values: Mapping[str, Any], options: RunOptions) -> list[Grid]:
        """The grids that are meant: one of what is named, or those of the report."""
        self._check_sources()
        matrices = self._matrices(Catalog(options.catalogs))
        if not matrices:
            which = "" if self.methods is None else f" of {', '.join(self.methods)}"
            message = f"report {self.of} needs no run{which}"
            raise InputError(message, hint="see petlbench report --help", kind="usage")
        parts = [(matrix, part) for matrix in matrices for part in self._parts(matrix)]
        vary = None if self.vary is None else Vary.parse(self.vary)
        if vary is not None:
            vary.refuse_beside(values, self.settings)
        grids = [self._grid(matrix, {**values, **part}, options) for matrix, part in parts]
        return grids if vary is None else [varied for grid in grids for varied in vary.grids(grid)]

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study or self.of or "bench"

    def search(self, catalog: Catalog) -> str:
        """The sweep that the protocol has in front; empty where it has none, or another source of settings is named."""
        protocol = self.protocol_card(catalog)
        return "" if protocol is None or self.from_sweep or self.recipe else protocol.sweep

    def _check_sources(self) -> None:
        """Refuse two sources of the same settings."""
        for first, second in (("report", "suite"), ("report", "protocol"), ("from_sweep", "recipe")):
            if getattr(self, first) is not None and getattr(self, second) is not None:
                one, other = (f"--{name.replace('_', '-')} {getattr(self, name)}" for name in (first, second))
                message = f"{one} and {other} exclude each other: both say what runs are to be"
                raise InputError(message, hint="leave one of them out", kind="usage")

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
            protocol = self.protocol_card(catalog)
            own = {"seeds": [0], "request": {}} if protocol is None else protocol.study
            matrices: list[dict[str, Any]] = [{"methods": self.methods, "settings": {}, **own}]
        else:
            matrices = self._required(load_suite if self.suite else load_report, catalog)
        named = {name: value for name in ("datasets", "seeds") if (value := getattr(self, name)) is not None}
        named |= {} if self.draw is None else {"draws": self.draw}
        methods = [[name for name in each["methods"] if name in (self.methods or [name])] for each in matrices]
        return [{**each, "methods": own, **named} for each, own in zip(matrices, methods, strict=True) if own]

    def _required(self, load: Callable[[Catalog, str], ReportCard], catalog: Catalog) -> list[dict[str, Any]]:
        """What the report needs; a suite is of the methods that are named, and under the protocol if there is one."""
        card = load(catalog, self.of or "")
        matrices = required_study(card, self.preset)
        if not card.groups:
            return matrices
        if not (methods := self.methods or card.study.methods):
            message = f"the suite '{card.name}' has no methods of its own"
            raise InputError(message, hint="name some, for example --method full,linear,lora", kind="usage")
        suites = [{**each, "methods": methods} for each in matrices]
        protocol = self.protocol_card(catalog)
        return suites if protocol is None else [_under(protocol, each) for each in suites]

    def _grid(self, matrix: Mapping[str, Any], values: Mapping[str, Any], options: RunOptions) -> Grid:
        methods, datasets, catalog = matrix["methods"], matrix["datasets"], Catalog(options.catalogs)
        names = (*methods, *(find_card(each, catalog=catalog)[0] for each in datasets))
        groups = by_group(self.settings, names)
        request = common_request(values, matrix["request"], groups, "bench()")
        settings = {name: {**matrix["settings"].get(name, {}), **groups[name]} for name in names}
        own = {name: values for name, values in settings.items() if values}
        draws, label, basis = matrix.get("draws", ()), _label(request), Basis(self.protocol_card(catalog))
        tuned = self._tuned(catalog, options)
        return Grid(
            methods,
            datasets,
            matrix["seeds"],
            request,
            own,
            tuned,
            draws=draws,
            label=label,
            basis=basis,
            cache=options.cache,
        )

    def protocol_card(self, catalog: Catalog) -> ProtocolCard | None:
        """The protocol that was asked for, or the suite's own."""
        name = self.protocol or (load_report(catalog, self.of).study.protocol if self.of else "")
        return load_protocol(catalog, name) if name else None

    def _tuned(self, catalog: Catalog, options: RunOptions) -> Callable[[RunConfig, DatasetInfo | None], Tuned] | None:
        """What gives settings that a search found, or that a recipe has; None for nothing."""
        if self.recipe is not None:
            return partial(_recipe_of, catalog, self.recipe)
        from petlbench.sweep.winner import read_winner

        if self.from_sweep is not None:
            return partial(read_winner, options.output, self.from_sweep)
        sweep = self.search(catalog)
        return partial(_winner_of, options.output, sweep) if sweep else None


def _under(protocol: ProtocolCard, matrix: Mapping[str, Any]) -> dict[str, Any]:
    """A suite's study under a protocol, whose seeds and settings go before its own."""
    own, fixed = matrix["request"], protocol.request["training"]
    training = {name: value for name, value in own.get("training", {}).items() if name not in fixed}
    request = {**own, **protocol.common, "training": training}
    return {**matrix, "seeds": protocol.study["seeds"], "request": request}


def plan_run(
    method: str | Method[Any] | None,
    dataset: Any,
    config: Folder | RunConfig | Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> tuple[ResolvedRun, RunContext]:
    """The run that the keywords of `run` mean, and what goes along with it.

    Raises:
        InputError: When a name or a setting is wrong, or the parts do not go together.
    """
    run_options, values = sort_options(options)
    catalog, values = Catalog(run_options.catalogs), merged_values(method, dataset, config, run_options, values)
    name, recipe = values.pop("protocol", None), values.pop("recipe", None)
    protocol = None if name is None else load_protocol(catalog, name)
    common = {} if protocol is None else {"seed": protocol.seeds[0], **protocol.common}
    request = request_of({**common, **values}, "run()")
    if request.dataset is None:
        raise InputError("run() names no dataset", hint="see petlbench list datasets", kind="unknown_dataset")
    tuned, basis = Tuned() if recipe is None else with_recipe(catalog, recipe, request), Basis(protocol)
    request = basis.below(request, tuned)
    run = resolve(request, catalog, run_options.data_root)
    run = replace(run, config=settled(run, request.cache_form, run_options.cache))
    return run, RunContext(replace(run_options, origin=basis.origin(request, tuned, run.config)))


def with_recipe(catalog: Catalog, recipe: str, request: Request) -> Tuned:
    """What a method's recipe has for a request."""
    dataset, _ = find_card(request.dataset or "", catalog=catalog)
    return require_recipe(catalog, recipe, catalog.find("method", request.method).name, dataset)


def _recipe_of(catalog: Catalog, recipe: str, config: RunConfig, info: DatasetInfo | None) -> Tuned:
    """What the recipe of a run's method has for its dataset."""
    return recipe_settings(catalog, recipe, config.method, info.name if info is not None else config.dataset)


def _winner_of(output: Path, sweep: str, config: RunConfig, info: DatasetInfo | None) -> Tuned:
    """What a study's own search found for a run; what it found nothing for is no reason to stop the study."""
    from petlbench.sweep.winner import read_winner

    try:
        return read_winner(output, sweep, config, info)
    except InputError as error:
        if error.kind != "unknown_winner":
            raise
        return Tuned(refusal=f"no trial of the search in front finished: {error.message}", failed=True)


@dataclass(frozen=True)
class StudyPlan:
    """Runs by study, and how they are carried out; ``report`` is the one whose runs these are."""

    name: str
    runs: Mapping[str, list[PlannedRun]]
    options: RunOptions
    execution: Execution
    report: str | None = None

    def page(self, study: str) -> list[str]:
        """The program that writes the page of one of its studies; a part of a report's runs has the table of any."""
        report = self.report if study == self.name else None
        return page_program(report, self.options.output, study, self.options.catalogs)


def plan_study(methods: Any, datasets: Any, seeds: Iterable[int] | None, options: Mapping[str, Any]) -> StudyPlan:
    """The runs that the keywords of `bench` mean, once the search of their protocol has its winners."""
    execution, run_options, request, values = _study(methods, datasets, seeds, options)
    runs = plan_runs(request.name, request.grids(values, run_options), run_options)
    return StudyPlan(request.name, runs, run_options, execution, request.of)


def preview_study(methods: Any, datasets: Any, seeds: Iterable[int] | None, options: Mapping[str, Any]) -> StudyPlan:
    """The same before that search: runs have the settings of the protocol."""
    execution, run_options, request, values = _study(methods, datasets, seeds, options)
    grids = request.grids(values, run_options)
    if request.search(Catalog(run_options.catalogs)):
        grids = [replace(grid, tuned=None) for grid in grids]
    return StudyPlan(request.name, plan_runs(request.name, grids, run_options), run_options, execution)


def plan_search_in_front(
    methods: Any, datasets: Any, seeds: Iterable[int] | None, options: Mapping[str, Any]
) -> tuple[list[SearchOutcome], SweepOptions] | None:
    """The searches whose winners the runs of `bench` wait for, and how they are carried out; None for none."""
    from petlbench.sweep.spec import load_sweep
    from petlbench.sweep.sweep import SweepOptions, plan_searches

    execution, run_options, request, _ = _study(methods, datasets, seeds, options)
    catalog = Catalog(run_options.catalogs)
    sweep, protocol = request.search(catalog), request.protocol_card(catalog)
    if not sweep or protocol is None:
        return None
    plan = preview_study(methods, datasets, seeds, options)
    planned = [run for runs in plan.runs.values() for run in runs if run.config is not None]
    # All seeds and draws of a method on a dataset share one request.
    requests = {id(run.request): run.request for run in planned}
    if not requests:
        return None
    searches = plan_searches(
        sweep,
        load_sweep(catalog.find("sweep", sweep)),
        list(requests.values()),
        run_options,
        study_name=plan.name,
        timeout=execution.timeout,
        basis=Basis(protocol),
    )
    return searches, SweepOptions(None, execution.executor, execution.limits, False, execution.retry_failed)


def _study(
    methods: Any, datasets: Any, seeds: Iterable[int] | None, options: Mapping[str, Any]
) -> tuple[Execution, RunOptions, StudyRequest, dict[str, Any]]:
    execution, run_options, catalog, values = carried_out(options)
    request, values = take(StudyRequest, values)
    request = replace(
        request,
        methods=None if methods is None else method_names(methods, catalog),
        datasets=None if datasets is None else dataset_names(datasets, run_options),
        seeds=None if seeds is None else list(dict.fromkeys(seeds)),
        shots=_several(request.shots),
        train_fraction=_several(request.train_fraction),
        draw=_several(request.draw),
    )
    return execution, run_options, request, values


def carried_out(options: Mapping[str, Any]) -> tuple[Execution, RunOptions, Catalog, dict[str, Any]]:
    """How runs are carried out, where they read and write, the catalogues, and all other options."""
    execution, options = take(Execution, options)
    run_options, values = sort_options(options)
    catalog = Catalog(run_options.catalogs)
    catalog.find("executor", execution.executor)
    return execution, run_options, catalog, values


def method_names(methods: str | Iterable[str], catalog: Catalog) -> list[str]:
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
