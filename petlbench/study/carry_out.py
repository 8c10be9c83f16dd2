"""From grids of runs to the summaries of studies: plan, carry out, sum up."""

from __future__ import annotations

from collections.abc import Sequence

from petlbench.core.catalog import Catalog
from petlbench.core.errors import PetlbenchError
from petlbench.data.dataset import open_dataset
from petlbench.results.tracking.backfill import track_study
from petlbench.run.options import RunContext, RunOptions
from petlbench.study.executors.base import Executor, ExecutorOptions, open_executor
from petlbench.study.existing import stored_result
from petlbench.study.grid import Grid, PlannedRun
from petlbench.study.runner import Study, open_status, run_study
from petlbench.study.status import StudyObserver
from petlbench.study.study_file import check_study_name, read_study
from petlbench.study.summary import Summary, summarize

__all__ = ["carry_out", "check_data", "plan_runs"]


def plan_runs(name: str, grids: Sequence[Grid], options: RunOptions) -> dict[str, list[PlannedRun]]:
    """Return the runs of each study by its name; with several grids, each is a study with a number behind its name.

    A method that stands in several grids, with other settings, is one cell in each of their studies.

    Raises:
        InputError: When a name is unknown, or a setting is unknown or out of bounds.
    """
    check_study_name(name)
    catalog = Catalog(options.catalogs)
    names = [name] if len(grids) == 1 else [f"{name}.{number}" for number in range(1, len(grids) + 1)]
    return {title: grid.plans(catalog, options.data_root) for title, grid in zip(names, grids, strict=True)}


def carry_out(
    studies: Sequence[Study],
    executor: str = "local",
    options: ExecutorOptions | None = None,
    observer: StudyObserver | None = None,
) -> list[Summary]:
    """Carry out what is missing of studies, one after the other, and return what each has come to.

    Args:
        studies: The studies; they share their options.
        executor: Name of the executor.
        options: How much it may use; None for its defaults.
        observer: Told what happens; None for nobody.

    Raises:
        InputError: When a dataset is not there, or finished results were made by other code.
        PetlbenchError: When the user stops it; the same studies go on from there.
    """
    context, observer = RunContext(studies[0].options), observer or StudyObserver()
    opened = open_executor(executor, options or ExecutorOptions(), context.catalog)
    if opened.is_local:
        check_data([run for study in studies for run in study.plans], context)
    return [_carry_out(study, opened, observer) for study in studies]


def check_data(runs: Sequence[PlannedRun], context: RunContext) -> None:
    """Open each dataset once: a study of days should not learn on its last day that one is not there.

    Raises:
        InputError: When a dataset is not there or wrong.
    """
    settings = {run.dataset: run.config.dataset_settings for run in runs if run.config is not None}
    for dataset, values in settings.items():
        open_dataset(dataset, catalog=context.catalog, data_root=context.options.data_root, settings=values)


def _carry_out(study: Study, executor: Executor, observer: StudyObserver) -> Summary:
    status = open_status(study)
    observer.begin(status, study.workers)
    try:
        notes = run_study(study, status, executor, observer)
        output = study.options.output
        run_ids = [run["run_id"] for run in read_study(output, study.name)["runs"] if run["run_id"] is not None]
        results = [stored_result(output, run_id) for run_id in dict.fromkeys(run_ids)]
        # The study's table, and the runs that MLflow lacks; of the study is whatever was ever asked of it.
        track_study(study.options.tracking_uri, output, study.name, list(filter(None, results)), progress=observer)
    except KeyboardInterrupt as error:
        message = f"stopped: {status.counts()['finished']} of {len(status.states)} runs are finished"
        raise PetlbenchError(message, hint="the same command goes on from here", kind="interrupted") from error
    return summarize(study.name, status, study.options.output, notes)
