"""petlbench from Python: every command of the command line as a function, each a thin layer over the engine.

Names of options are those of the command line, with ``_`` for ``-``. Whatever is wrong raises an exception of
`petlbench.core.errors` with the words that the command line prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.catalog import Catalog, Folder, Folders, catalog_of
from petlbench.core.environment import set_thread_defaults
from petlbench.core.errors import unknown_name
from petlbench.core.progress_bars import shown_progress
from petlbench.core.request import request_of

if TYPE_CHECKING:
    import pandas
    from torch import nn

    from petlbench.core.config import RunConfig
    from petlbench.models.adapted_model import AdaptedModel
    from petlbench.models.method import Method
    from petlbench.report.document import Document
    from petlbench.results.result import Result
    from petlbench.results.table import Results
    from petlbench.run.load import Restored
    from petlbench.statistics.verdict import Comparison
    from petlbench.study.forecast.preview import DryRun
    from petlbench.sweep.sweep import SweepResult

__all__ = [
    "adapt",
    "bench",
    "compare",
    "dry_run",
    "estimate_memory",
    "load",
    "load_results",
    "report",
    "run",
    "sweep",
]

set_thread_defaults()


def run(
    method: str | Method[Any] | None = None,
    dataset: Any = None,
    *,
    config: Folder | RunConfig | Mapping[str, Any] | None = None,
    output: Folder = "results",
    catalog: Folders = (),
    progress: bool = True,
    **options: Any,
) -> Result:
    """The result of one run: one method, on one dataset, with one seed.

    Args:
        method: Name of a method, or a method with its settings, such as ``Mine(rank=4)``.
        dataset: Name of a dataset, a folder of class folders, a CSV file or a card; or a torch ``Dataset``, a sequence
            of (image, label), or a DataFrame with the columns ``image`` and ``label``.
        config: A run file (TOML), a `RunConfig` (such as ``result.config``), or a mapping like one; what is given
            beside it takes precedence.
        output: Folder of all results.
        catalog: Folders with methods, datasets, metrics, … of your own.
        progress: Whether bars show what goes on.
        options: Fields of `petlbench.core.request.Request` (``backbone``, ``image_size``, ``seed``,
            ``method_settings``, …), of `petlbench.core.config.TrainingConfig` (``epochs``, ``lr``, …) and of
            `petlbench.run.options.RunOptions` (``data_root``, ``workers``, ``rerun``, …).

    Returns:
        The result; its files lie in ``output / result.run_id``, the same id as the command line gives it. Its status
        says whether it finished.

    Raises:
        InputError: When a name, a setting or the data is wrong; nothing is left behind then.
        RunError: When another process works on this run, or weights cannot be fetched.
    """
    from petlbench.run.execute import execute
    from petlbench.run.keywords import resolve_keywords, sort_options

    resolved, context = resolve_keywords(method, dataset, config, *sort_options(options, output, catalog))
    with shown_progress(progress) as shown:
        return execute(resolved, replace(context, progress=shown))


def dry_run(
    method: str | Method[Any] | None = None,
    dataset: Any = None,
    *,
    config: Folder | RunConfig | Mapping[str, Any] | None = None,
    output: Folder = "results",
    catalog: Folders = (),
    **options: Any,
) -> DryRun:
    """What a run would take, without images, weights or training: its parameters and its predicted memory.

    Args:
        method: As for `run`.
        dataset: As for `run`; its images need not be there.
        config: As for `run`.
        output: As for `run`.
        catalog: As for `run`.
        options: As for `run`.

    Raises:
        InputError: When a name or a setting is wrong, or preloaded features would find no room.
    """
    from petlbench.run.keywords import resolve_keywords, sort_options
    from petlbench.study.forecast.preview import dry_run

    resolved, context = resolve_keywords(method, dataset, config, *sort_options(options, output, catalog))
    return dry_run(resolved, context.options.cache)


def adapt(
    model: nn.Module,
    method: str | type[Method[Any]] | Method[Any],
    num_classes: int,
    *,
    catalog: Folders = (),
    **settings: Any,
) -> AdaptedModel:
    """A timm model with a method put on it: a plain module from images (B, 3, H, W) to logits (B, C).

    Args:
        model: A vision transformer of timm's; changed in place.
        method: Name of a method, a method's class, or a method with its settings.
        num_classes: Number of classes C.
        catalog: Folders with methods of your own.
        settings: The method's settings, such as ``rank=8``.

    Raises:
        InputError: When the name or a setting is unknown, or the method cannot adapt the model.

    Example:
        >>> import timm
        >>> model = adapt(timm.create_model("vit_tiny_patch16_224"), "lora", num_classes=7, rank=8)
        >>> sum(tensor.numel() for tensor in model.learnable_parameters())
        75079
    """
    from petlbench.models.adapted_model import adapt_model
    from petlbench.models.method import Method, load_method
    from petlbench.run.keywords import with_card

    if isinstance(method, str):
        method = load_method(catalog_of(catalog).find("method", method))
    chosen = method if isinstance(method, Method) else with_card(method)(**settings)
    return adapt_model(model, chosen, num_classes)


def load(run: Folder, results: Folder = "results", *, catalog: Folders = (), device: str | None = None) -> Restored:
    """A finished run's model, with what it learned, ready to predict.

    Args:
        run: The beginning of a run's id, or its folder.
        results: Folder of all results.
        catalog: Folders with methods of your own.
        device: Where to compute; None for the run's own device where it is there, else the CPU.

    Raises:
        InputError: When there is no such run, it is not finished, or what it depends on has changed.
    """
    from petlbench.results.folder import find_run
    from petlbench.run.load import restore

    return restore(find_run(str(run), Path(results)).final, catalog_of(catalog), device=device)


def estimate_memory(
    methods: str | Iterable[str] = "all",
    *,
    num_classes: int = 2,
    budget: int | None = None,
    catalog: Folders = (),
    progress: bool = False,
    **options: Any,
) -> pandas.DataFrame:
    """The predicted peak memory of a training step, one row a method, in bytes.

    Args:
        methods: Names of methods; ``all`` for every one.
        num_classes: Number of classes C.
        budget: Bytes that there are: adds the columns ``fits`` and ``max_batch_size``.
        catalog: Folders with methods of your own.
        progress: Whether a bar shows what goes on.
        options: As for `run`: ``backbone``, ``image_size``, ``batch_size``, ``precision``, ``device`` (default:
            ``cuda``), ``attention_kernel``, ``method_settings``, …

    Returns:
        The columns ``method``, ``allocated``, ``reserved``, ``process`` (bytes; None where there is no such figure),
        ``parameters``, ``gradients``, ``optimizer``, ``activations``, ``other`` (the parts of ``allocated``),
        ``source`` (always ``predicted``) and ``refused`` (why a method has no figures).

    Raises:
        InputError: When a name or a setting is wrong.
    """
    import pandas

    from petlbench.study.forecast.memory import Extras, predict_rows
    from petlbench.study.grid import Grid

    catalogs = catalog_of(catalog)
    names = _names(methods, catalogs)
    request = request_of({"device": "cuda", "method": names[0], **options}, "estimate_memory()")
    extras = Extras(budget=budget)
    with shown_progress(progress) as shown:
        runs = Grid(names, (), (0,), request).plans(catalogs, Path())
        rows = predict_rows(runs, num_classes, extras, folders=catalogs.folders, progress=shown)
    documents = [row.document(extras) for row in rows]
    parts = [document.pop("parts") or {} for document in documents]
    return pandas.DataFrame([{**document, **part} for document, part in zip(documents, parts, strict=True)])


def bench(
    methods: str | Iterable[str],
    datasets: Any,
    seeds: Iterable[int] = (0,),
    *,
    study: str = "bench",
    executor: str = "local",
    workers: int = 0,
    timeout: float | None = None,
    retry_failed: bool = False,
    output: Folder = "results",
    catalog: Folders = (),
    progress: bool = True,
    **options: Any,
) -> Results:
    """The results of every combination of methods, datasets and seeds; what is finished is left alone.

    Args:
        methods: Names of methods; ``all`` for every one.
        datasets: Datasets as `run` takes them, one or several.
        seeds: Seeds, each once.
        study: The study's name.
        executor: Where runs are carried out: ``local``, ``ray`` or one of your own.
        workers: How many runs at once, each in a process of its own; 0 for this process.
        timeout: Seconds after which a run is stopped.
        retry_failed: Whether failed runs are tried again.
        output: Folder of all results.
        catalog: Folders with methods, datasets, … of your own.
        progress: Whether a table shows what goes on.
        options: As for `run`.

    Returns:
        The study's results, unfinished ones too; ``.to_dataframe(level="cell")`` has means over seeds.

    Raises:
        InputError: When a name, a setting or a dataset is wrong.
    """
    from petlbench.results.table import load_results
    from petlbench.run.keywords import dataset_names, sort_options
    from petlbench.study.executors.job import ExecutorOptions
    from petlbench.study.grid import Grid
    from petlbench.study.live_table import LiveTable
    from petlbench.study.runner import Study, carry_out, plan_runs
    from petlbench.study.status import StudyObserver

    run_options, values = sort_options(options, output, catalog)
    names = _names(methods, Catalog(run_options.catalogs))
    request = request_of({"method": names[0], **values}, "bench()")
    grid = Grid(names, dataset_names(datasets, run_options), list(seeds), request)
    plans = plan_runs(study, [grid], run_options)
    studies = [Study(name, runs, run_options, timeout, retry_failed, max(1, workers)) for name, runs in plans.items()]
    with LiveTable() if progress else nullcontext(StudyObserver()) as observer:
        carry_out(studies, executor, ExecutorOptions(workers), observer)
    return load_results(run_options.output, study)


def sweep(
    sweep: str,
    methods: str | Iterable[str],
    datasets: Any,
    *,
    trials: int | None = None,
    search_sizes: bool | None = None,
    test: bool = True,
    study: str | None = None,
    storage: str | None = None,
    executor: str = "local",
    workers: int = 0,
    timeout: float | None = None,
    retry_failed: bool = False,
    output: Folder = "results",
    catalog: Folders = (),
    progress: bool = True,
    **options: Any,
) -> SweepResult:
    """What a search found best for each method on each dataset: ``.best``, ``.trials``.

    Args:
        sweep: Name of a search; see `list_sweeps`.
        methods: Names of methods; ``all`` for every one.
        datasets: Datasets as `run` takes them, one or several.
        trials: Trials of every method; None for the sweep's own number.
        search_sizes: Whether the methods' sizes are searched, too; None for the sweep's own choice.
        test: Whether the winner is run on the sweep's seeds, and tested once on each.
        study: The study of the winners' runs; None for the sweep's name.
        storage: Address of the database of trials; None for a file in the output folder.
        executor: As for `bench`.
        workers: As for `bench`.
        timeout: Seconds after which a run is stopped.
        retry_failed: Whether failed trials are tried again.
        output: Folder of all results.
        catalog: Folders with methods, datasets, … of your own.
        progress: Whether a line a trial shows what goes on.
        options: As for `run`; what is given here is not searched.

    Raises:
        InputError: When a name, a setting or a dataset is wrong.
    """
    from petlbench.run.keywords import dataset_names, sort_options
    from petlbench.study.executors.job import ExecutorOptions
    from petlbench.sweep.spec import load_sweep
    from petlbench.sweep.sweep import SweepObserver, SweepOptions, SweepResult, TrialLines, carry_out, plan_searches

    run_options, values = sort_options(options, output, catalog)
    catalogs = Catalog(run_options.catalogs)
    track = None if search_sizes is None else "tuned" if search_sizes else "matched"
    changes = {name: value for name, value in (("trials", trials), ("track", track)) if value is not None}
    requests = [
        request_of({**values, "method": method, "dataset": dataset}, "sweep()")
        for dataset in dataset_names(datasets, run_options)
        for method in _names(methods, catalogs)
    ]
    card = load_sweep(catalogs.find("sweep", sweep), **changes)
    searches = plan_searches(sweep, card, requests, run_options, study_name=study, timeout=timeout)
    how = SweepOptions(storage, executor, ExecutorOptions(workers), is_final=test, retry_failed=retry_failed)
    with TrialLines() if progress else nullcontext(SweepObserver()) as observer:
        return SweepResult(carry_out(searches, how, observer))


def report(
    name: str, results: Folder = "results", *, catalog: Folders = (), progress: bool = False, **options: Any
) -> Document:
    """A table or figure of stored results: ``.to_dataframe()``, ``.to_latex()``, ``.to_markdown()``, ``.save(path)``.

    Args:
        name: Name of a report; see `list_reports`.
        results: A folder of results, ``mlflow:URI`` or ``papers:NAME``.
        catalog: Folders with reports, metrics, … of your own.
        progress: Whether a bar shows what goes on.
        options: Fields of `petlbench.report.spec.ReportRequest`: ``study``, ``preset``, ``where``, ``columns``,
            ``metric``, ``against``, …

    Raises:
        InputError: When there are no results for it, or none that one table may hold.
    """
    from petlbench.report.build import build_report
    from petlbench.report.spec import ReportRequest, load_report

    names = [each.name for each in fields(ReportRequest)]
    for option in options:
        if option not in names:
            raise unknown_name("option of report()", option, names)
    catalogs = catalog_of(catalog)
    with shown_progress(progress) as shown:
        return build_report(load_report(catalogs, name), ReportRequest(str(results), **options), catalogs, shown)


def load_results(folder: Folder = "results", study: str | None = None) -> Results:
    """The results in a folder, with PPE and PME: ``.to_dataframe()`` has one row a run, ``level="cell"`` one a cell.

    Args:
        folder: Folder of all results.
        study: A study whose runs are taken alone.

    Raises:
        InputError: When there is no such folder or study, or a result is damaged.
    """
    from petlbench.results.table import load_results

    return load_results(folder, study)


def compare(
    a: str,
    b: str,
    *,
    on: str | Iterable[str] | None = None,
    results: Folder = "results",
    study: str | None = None,
    metric: str = "auc",
    catalog: Folders = (),
) -> Comparison:
    """How much better method a is than method b: ``.effect``, ``.interval`` (fractions), ``.verdict``.

    Args:
        a: A method.
        b: The method that it is compared with.
        on: A dataset, or several; None for all that both were run on.
        results: Folder of all results.
        study: A study whose runs are taken alone.
        metric: Name of the score.
        catalog: Folders with metrics of your own.

    Returns:
        Over several datasets the mean of their differences. `petlbench.statistics.comparison` says how the interval
        is made of images, seeds and splits.

    Raises:
        InputError: When one of them has no finished run there, or the runs are not comparable.
    """
    from petlbench.metrics.metric import Metric
    from petlbench.report.compare import compare_methods
    from petlbench.results.table import load_results

    datasets = [on] if isinstance(on, str) else list(on or ())
    score = catalog_of(catalog).load("metric", metric, Metric)
    return compare_methods(load_results(results, study), (a, b), datasets, score)


def _names(methods: str | Iterable[str], catalog: Catalog) -> list[str]:
    """The names of methods that stand for one, several or all."""
    if methods == "all":
        return list(catalog.entries("method"))
    names = methods.split(",") if isinstance(methods, str) else methods
    return list(dict.fromkeys(catalog.find("method", name.strip()).name for name in names))
