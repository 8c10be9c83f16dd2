"""What stands of runs: found, compared, shown and removed, and put to use on other images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from petlbench.core.catalog import Folder, Folders, catalog_of
from petlbench.core.errors import InputError, RunError, unknown_name
from petlbench.core.progress_bars import shown_progress
from petlbench.core.user_files import user_path

if TYPE_CHECKING:
    from petlbench.report.formats import Document
    from petlbench.results.listing import Listing
    from petlbench.results.result import Result
    from petlbench.results.table import Results
    from petlbench.results.tracking.backfill import Tracked
    from petlbench.statistics.verdict import Comparison


def load_results(folder: Folder = "results", study: str | None = None) -> Results:
    """The results in a folder, with PPE and PME: ``.to_dataframe()`` has one row a run, ``level="cell"`` one a cell.

    Args:
        folder: Folder of all results, or a bundle that `pack` made of them.
        study: A study whose runs are taken alone.

    Raises:
        InputError: When there is no such folder or study, or a result is damaged.
    """
    from petlbench.report.bundle.opened import results_folder
    from petlbench.results.table import load_results

    return load_results(results_folder(user_path(folder, what="--output")), study)


def list_results(
    folder: Folder = "results",
    *,
    methods: Collection[str] | None = None,
    datasets: Collection[str] | None = None,
    statuses: Collection[str] | None = None,
) -> Listing:
    """The runs in a folder, of each a summary: what it is of, its status and main figures, and no more is read.

    Args:
        folder: Folder of all results.
        methods: Names of the methods whose runs are wanted; None for all.
        datasets: Names of the datasets; None for all.
        statuses: Statuses such as ``finished`` or ``failed``; None for all.

    Raises:
        InputError: When there is no such folder, or no such status.
    """
    from petlbench.results.listing import list_runs

    check_statuses(statuses or ())
    listing = list_runs(user_path(folder, what="--output"))
    return replace(listing, runs=listing.matching(methods, datasets, statuses))


@dataclass
class Removed:
    """What was removed.

    Args:
        removed: Ids of the runs.
        kept: Why others stay.
        bytes: How many that freed.
    """

    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    bytes: int = 0


def find_run(run: Folder, results: Folder = "results") -> Path:
    """The folder of a run.

    Args:
        run: The beginning of a run's id, or its folder.
        results: Folder of all results.

    Raises:
        InputError: When no run, or more than one, is meant.
    """
    from petlbench.results.folder import find_run

    return find_run(str(run), user_path(results, what="--output")).final


def load_result(run: Folder, results: Folder = "results") -> Result:
    """One result, with PPE and PME as of now: what ``result.json`` holds.

    The run is named as for `find_run`, and an `InputError` says where its result is damaged.
    """
    from petlbench.results.result import read_result
    from petlbench.results.table import with_scores

    folder = find_run(run, results)
    [result] = with_scores([read_result(folder)], folder.parent)
    return result


def diff_results(first: Folder, second: Folder, results: Folder = "results") -> dict[str, tuple[Any, Any]]:
    """In what two runs differ: settings, data, code, packages, machine and figures.

    Runs are named as for `find_run`.

    Returns:
        The two values, None where one is absent, by their place in ``result.json`` with dots between the levels.
    """
    from petlbench.results.result import read_result
    from petlbench.results.stored import compare_results

    return compare_results(read_result(find_run(first, results)), read_result(find_run(second, results)))


def check_statuses(statuses: Iterable[str]) -> None:
    """Refuse what is no status of a run.

    Raises:
        InputError: When one is none.
    """
    from petlbench.results.result import Status

    for name in statuses:
        if name not in get_args(Status):
            hint = f"known: {', '.join(get_args(Status))}"
            raise InputError(f"--status {name}: there is no such status", hint=hint, kind="unknown_status")


def remove_results(
    runs: Iterable[Folder] = (),
    results: Folder = "results",
    *,
    statuses: Collection[str] = (),
    confirm: Callable[[Sequence[str]], object] | None = None,
) -> Removed:
    """What was removed: runs' results, and what is kept of unfinished ones; one that is being worked on stays.

    Args:
        runs: Runs as `find_run` takes them.
        results: Folder of all results.
        statuses: Every run with one of these statuses, such as ``failed``, goes too.
        confirm: Called with the runs' ids before anything goes; what it raises stops that.

    Raises:
        InputError: When nothing is named, a name means no run or more than one, or there is no such status.
    """
    from petlbench.results.folder import RunFolder, only_run, remove_run

    output = user_path(results, what="--output")
    check_statuses(statuses)
    if not (names := list(runs)) and not statuses:
        raise InputError("no run is named", hint="name runs, or a --status", kind="usage")
    folders = [only_run(str(run), output) for run in names]
    if statuses:
        runs_there = [run for run in load_results(output).runs if run.status in statuses]
        folders += [RunFolder(output, run.folder.name) for run in runs_there if run.folder is not None]
    folders = list({folder.final: folder for folder in folders}.values())
    if folders and confirm is not None:
        confirm([folder.run_id for folder in folders])
    removed = Removed()
    for folder in folders:
        try:
            removed.bytes += remove_run(folder)
            removed.removed.append(folder.run_id)
        except RunError as error:
            removed.kept.append(error.message)
    return removed


def track_results(
    runs: Iterable[Folder] = (), results: Folder = "results", *, tracking_uri: str | None = None, progress: bool = False
) -> Tracked:
    """What was sent to an MLflow store that lacked it: results, all of them where no run is named.

    Runs are named as for `find_run`; without ``tracking_uri``, MLflow's address, the store is a file in the folder.

    Raises:
        InputError: When MLflow knows no such address, or a run has no result.
    """
    from petlbench.results.tracking.backfill import track_results

    names = [find_run(run, results).name for run in runs]
    with shown_progress(progress) as shown:
        return track_results(tracking_uri, user_path(results, what="--output"), names, progress=shown)


def report(
    name: str, results: Folder = "results", *, catalog: Folders = (), progress: bool = False, **options: Any
) -> Document:
    """A table or figure of stored results: ``.to_dataframe()``, ``.to_latex()``, ``.to_markdown()``, ``.save(path)``.

    Args:
        name: Name of a report; see `list_reports`.
        results: A folder of results, a bundle of `pack`, ``mlflow:URI``, ``papers:NAME``, or a CSV of scores that
            others have of a suite.
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


def compare(
    a: str,
    b: str,
    *,
    on: str | Iterable[str] | None = None,
    results: Folder = "results",
    study: str | None = None,
    metric: str = "auc",
    unit: Literal["image", "group"] = "image",
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
        unit: What it counts: images, or groups (patients, lesions).
        catalog: Folders with metrics of your own.

    Returns:
        Over several datasets the mean of their differences. `petlbench.statistics.comparison` says how the interval
        is made of images, seeds and splits.

    Raises:
        InputError: When one of them has no finished run there, or the runs are not comparable.
    """
    from petlbench.report.build import compare_methods
    from petlbench.report.spec import ReportRequest

    datasets = [on] if isinstance(on, str) else list(on or ())
    request = ReportRequest(str(results), metric=metric, unit=unit)
    return compare_methods(load_results(results, study), (a, b), datasets, request, catalog_of(catalog))
