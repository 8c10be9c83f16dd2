"""One run, many runs, searches, and what they would take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from petlbench.core.catalog import Folder
from petlbench.core.environment import heavy_imports
from petlbench.core.progress_bars import shown_progress
from petlbench.core.user_files import recorded

if TYPE_CHECKING:
    import pandas

    from petlbench.core.config import RunConfig
    from petlbench.models.method import Method
    from petlbench.report.kinds.memory import Forecast
    from petlbench.results.result import Result
    from petlbench.study.forecast.preview import DryRun, Preview
    from petlbench.study.summary import StudyResults
    from petlbench.sweep.sweep import SearchOutcome, SweepOptions, SweepResult

# Fewer predictions than this are made sooner than workers are started.
_ALONE = 2


def run(
    method: str | Method[Any] | None = None,
    dataset: Any = None,
    *,
    config: Folder | RunConfig | Mapping[str, Any] | None = None,
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
        progress: Whether bars show what goes on.
        options: Fields of `petlbench.core.request.Request` (``backbone``, ``image_size``, ``seed``,
            ``method_settings``, …), of `petlbench.core.config.TrainingConfig` (``epochs``, ``lr``, …) and of
            `petlbench.run.options.RunOptions` (``output``, ``data_root``, ``workers``, ``rerun``, …); ``protocol`` and
            ``recipe``, which hold where nothing else is said; and ``catalog``: folders with methods, datasets, metrics,
            … of your own.

    Returns:
        The result; its files lie in ``OUTPUT/RUN_ID``, the same id as the command line gives it. Its status
        says whether it finished.

    Raises:
        InputError: When a name, a setting or the data is wrong; nothing is left behind then.
        RunError: When another process works on this run, or weights cannot be fetched.
    """
    from petlbench.run.recall import RunRecall

    recall = RunRecall.of({"method": method, "dataset": dataset, "config": config}, options)
    if recall is not None and (result := recall.result()) is not None:
        with shown_progress(progress) as shown:
            shown.say(f"{result.run_id} is finished already; --rerun runs it again")
        return result
    with shown_progress(progress) as shown, recorded() as opened:
        shown.phase("starting", 1)  # a bar on a terminal while torch is imported
        with heavy_imports():
            from petlbench.api.requests import plan_run
            from petlbench.run.execute import execute

        resolved, context = plan_run(method, dataset, config, options)
        result = execute(resolved, replace(context, progress=shown))
    if recall is not None:
        recall.keep_result(result, opened)
    return result


def dry_run(
    method: str | Method[Any] | None = None,
    dataset: Any = None,
    *,
    config: Folder | RunConfig | Mapping[str, Any] | None = None,
    **options: Any,
) -> DryRun:
    """What a run would take, without images, weights or training: its parameters and its predicted memory.

    It takes what `run` takes; the images need not be there.

    Raises:
        InputError: When a name or a setting is wrong, or preloaded features would find no room.
    """
    from petlbench.api.requests import plan_run
    from petlbench.study.forecast.preview import dry_run

    resolved, context = plan_run(method, dataset, config, options)
    return dry_run(resolved, context.options.cache, context.catalog)


def bench(
    methods: str | Iterable[str] | None = None,
    datasets: Any = None,
    seeds: Iterable[int] | None = None,
    *,
    progress: bool = True,
    **options: Any,
) -> StudyResults:
    """The results of every combination of methods, datasets and seeds; what is finished is left alone.

    Args:
        methods: Names of methods; ``all`` for every one; None for those of a report.
        datasets: Datasets as `run` takes them, one or several; None for those of a suite or a report.
        seeds: Seeds; None for those of a suite or a report, or 0.
        progress: Whether a table shows what goes on.
        options: Fields of `petlbench.api.requests.StudyRequest` (``study``, ``suite``, ``protocol``, …), of
            `petlbench.api.requests.Execution` (``executor``, ``workers``, ``timeout``, …), and as for `run`.

    Returns:
        The study's results, unfinished ones too; ``.to_dataframe(level="cell")`` has means over seeds.

    Raises:
        InputError: When a name, a setting or a dataset is wrong.
    """
    from petlbench.study.recall import StudyRecall

    recall = StudyRecall.of({"methods": methods, "datasets": datasets, "seeds": seeds}, options)
    if recall is not None and (results := recall.results()) is not None:
        return results
    with recorded() as opened, _worker_ahead(options):
        results = _carry_out(methods, datasets, seeds, options, progress=progress)
    if recall is not None:
        recall.keep_results(results, opened)
    return results


def _worker_ahead(options: Mapping[str, Any]) -> AbstractContextManager[None]:
    """A context in which the first worker of a study that has any imports torch, while the study is planned."""
    from petlbench.study.executors.worker import worker_ahead

    has_workers = options.get("executor", "local") == "local" and options.get("workers")
    return worker_ahead() if has_workers else nullcontext()


def _carry_out(
    methods: str | Iterable[str] | None,
    datasets: Any,
    seeds: Iterable[int] | None,
    options: Mapping[str, Any],
    *,
    progress: bool,
) -> StudyResults:
    """The results of the study that the keywords of `bench` mean, with what was missing carried out."""
    with heavy_imports():
        from petlbench.api.requests import plan_search_in_front, plan_study
    from petlbench.results.table import load_results
    from petlbench.study.live_table import LiveTable
    from petlbench.study.runner import Study, carry_out
    from petlbench.study.status import StudyObserver
    from petlbench.study.summary import StudyResults

    front = plan_search_in_front(methods, datasets, seeds, options)
    if front is not None:
        _search(*front, progress=progress)
    plan = plan_study(methods, datasets, seeds, options)
    how = plan.execution
    studies = [
        Study(name, runs, plan.options, how.timeout, how.retry_failed, max(1, how.workers), plan.page(name))
        for name, runs in plan.runs.items()
    ]
    with LiveTable() if progress else nullcontext(StudyObserver()) as observer:
        summaries = carry_out(studies, how.executor, how.limits, observer)
    results = load_results(plan.options.output, plan.name)
    return StudyResults(**vars(results), name=plan.name, summaries=summaries)


def preview_bench(
    methods: str | Iterable[str] | None = None,
    datasets: Any = None,
    seeds: Iterable[int] | None = None,
    *,
    progress: bool = True,
    **options: Any,
) -> list[Preview]:
    """What a study would take, one a method and dataset: its predicted memory, its time by earlier runs, its features.

    It takes what `bench` takes, and raises what it raises; ``workers`` are processes that predict. Runs of a
    protocol with a search in front are shown with its own settings; `preview_bench_search` says what is searched.
    """
    from petlbench.api.requests import preview_study
    from petlbench.core.process_pool import open_workers
    from petlbench.run.options import RunContext
    from petlbench.study.forecast.preview import preview_grid

    plan = preview_study(methods, datasets, seeds, options)
    runs = [run for part in plan.runs.values() for run in part]
    with open_workers(plan.execution.workers) as workers, shown_progress(progress) as shown:
        return preview_grid(runs, RunContext(plan.options, shown), workers=workers)


def preview_bench_search(
    methods: str | Iterable[str] | None = None,
    datasets: Any = None,
    seeds: Iterable[int] | None = None,
    **options: Any,
) -> list[SearchOutcome]:
    """What the protocol of a study would search in front, as `preview_sweep` has it; nothing where it has no search.

    It takes what `bench` takes, and raises what it raises.
    """
    from petlbench.api.requests import plan_search_in_front

    front = plan_search_in_front(methods, datasets, seeds, options)
    return [] if front is None else front[0]


def sweep(
    sweep: str, methods: str | Iterable[str], datasets: Any, *, progress: bool = True, **options: Any
) -> SweepResult:
    """What a search found best for each method on each dataset: ``.best``, ``.trials``.

    Args:
        sweep: Name of a search; see `list_sweeps`.
        methods: Names of methods; ``all`` for every one.
        datasets: Datasets as `run` takes them, one or several.
        progress: Whether a line a trial shows what goes on.
        options: Fields of `petlbench.api.searches.SweepRequest` (``trials``, ``test``, ``protocol``, …), of
            `petlbench.api.requests.Execution` (``executor``, ``workers``, ``timeout``, …), and as for `run`; what is
            given of these is not searched.

    Raises:
        InputError: When a name, a setting or a dataset is wrong.
    """
    with _worker_ahead(options):
        with heavy_imports():
            from petlbench.api.searches import plan_sweep
        from petlbench.sweep.sweep import SweepResult

        return SweepResult(_search(*plan_sweep(sweep, methods, datasets, options), progress=progress))


def _search(searches: Sequence[SearchOutcome], how: SweepOptions, *, progress: bool) -> list[SearchOutcome]:
    """What came of searches, told a line a trial where that is to be shown."""
    from petlbench.sweep.sweep import SweepObserver, TrialLines, carry_out

    with TrialLines() if progress else nullcontext(SweepObserver()) as observer:
        return carry_out(searches, how, observer)


def preview_sweep(sweep: str, methods: str | Iterable[str], datasets: Any, **options: Any) -> list[SearchOutcome]:
    """What a sweep would search, one a method and dataset: ``.preview()`` has its space and its trials.

    It takes what `sweep` takes, and raises what it raises.
    """
    from petlbench.api.searches import plan_sweep

    return plan_sweep(sweep, methods, datasets, options)[0]


def estimate_memory(
    methods: str | Iterable[str] = "all", *, num_classes: int = 2, progress: bool = False, **options: Any
) -> pandas.DataFrame:
    """The predicted peak memory of a training step, one row a method, in bytes.

    Args:
        methods: Names of methods; ``all`` for every one.
        num_classes: Number of classes C.
        progress: Whether a bar shows what goes on.
        options: As for `forecast_memory`; ``budget`` adds the columns ``fits`` and ``max_batch_size``.

    Returns:
        The columns ``method``, ``allocated``, ``reserved``, ``process`` (bytes; None where there is no such figure),
        ``parameters``, ``gradients``, ``optimizer``, ``activations``, ``other`` (the parts of ``allocated``),
        ``source`` (always ``predicted``) and ``refused`` (why a method has no figures).

    Raises:
        InputError: When a name or a setting is wrong.
    """
    import pandas

    forecast = forecast_memory(methods, num_classes=num_classes, progress=progress, **options)
    documents = [row.document(forecast.extras) for row in forecast.rows]
    parts = [document.pop("parts") or {} for document in documents]
    return pandas.DataFrame([{**document, **part} for document, part in zip(documents, parts, strict=True)])


def forecast_memory(
    methods: str | Iterable[str] = "all",
    *,
    dataset: str | None = None,
    num_classes: int | None = None,
    vary: str | None = None,
    compare: bool = False,
    workers: int = 1,
    progress: bool = False,
    **options: Any,
) -> Forecast:
    """The predicted peak memory of training steps with its parts, as the tables and figures of ``petlbench memory``.

    Args:
        methods: Names of methods; ``all`` for every one.
        dataset: Gives the number of classes and the image size; its images need not be there.
        num_classes: Number of classes C, instead of a dataset; None for seven, as in the papers.
        vary: ``NAME=V1,V2,...``: one figure for each value.
        compare: Whether the papers' tables are predicted, too; in a checkout of petlbench alone.
        workers: Processes that predict.
        progress: Whether a bar shows what goes on.
        options: Fields of `petlbench.study.forecast.memory.Extras` (``budget`` and ``context`` in bytes, …), and as for
            `run`; the default device is ``cuda``.

    Raises:
        InputError: When a name or a setting is wrong.
    """
    from petlbench.api.forecasts import plan_forecast
    from petlbench.core.process_pool import open_workers
    from petlbench.study.forecast.memory import predict_rows
    from petlbench.study.forecast.papers import published_memory

    plan = plan_forecast(methods, dataset, num_classes, vary, options)
    papers = published_memory() if compare else None
    alone = len(plan.runs) <= _ALONE and papers is None
    with open_workers(1 if alone else workers) as pool, shown_progress(progress) as shown:
        rows = predict_rows(plan.runs, plan.classes, plan.extras, folders=plan.folders, workers=pool, progress=shown)
        return plan.forecast(rows, papers.compare_papers(plan.folders, pool, shown) if papers is not None else None)
