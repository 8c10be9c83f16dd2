"""What stands of runs: found, compared, shown and removed, and put to use on other images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from petlbench.core.catalog import Folder, Folders, catalog_of
from petlbench.core.errors import InputError, RunError, unknown_name
from petlbench.core.progress_bars import shown_progress
from petlbench.core.user_files import user_path

if TYPE_CHECKING:
    from torch import nn

    from petlbench.models.adapted_model import AdaptedModel
    from petlbench.models.method import Method
    from petlbench.report.formats import Document
    from petlbench.results.evaluation import Evaluation
    from petlbench.results.result import Result
    from petlbench.results.table import Results
    from petlbench.results.tracking.backfill import Tracked
    from petlbench.run.export import Exported
    from petlbench.run.load import Restored
    from petlbench.run.predict import Predictions
    from petlbench.statistics.verdict import Comparison


def load_results(folder: Folder = "results", study: str | None = None) -> Results:
    """The results in a folder, with PPE and PME: ``.to_dataframe()`` has one row a run, ``level="cell"`` one a cell.

    Args:
        folder: Folder of all results.
        study: A study whose runs are taken alone.

    Raises:
        InputError: When there is no such folder or study, or a result is damaged.
    """
    from petlbench.results.table import load_results

    return load_results(user_path(folder, what="--output"), study)


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
    from petlbench.results.table import load_results

    datasets = [on] if isinstance(on, str) else list(on or ())
    request = ReportRequest(str(results), metric=metric, unit=unit)
    return compare_methods(load_results(results, study), (a, b), datasets, request, catalog_of(catalog))


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
    return adapt_model(model, method if isinstance(method, Method) else with_card(method)(**settings), num_classes)


def load(
    run: Folder,
    results: Folder = "results",
    *,
    catalog: Folders = (),
    device: str | None = None,
    download: bool = False,
) -> Restored:
    """A finished run's model, with what it learned, ready to predict.

    Args:
        run: The beginning of a run's id, or its folder.
        results: Folder of all results.
        catalog: Folders with methods of your own.
        device: Where to compute; None for the run's own device where it is there, else the CPU.
        download: Whether the backbone's weights may be fetched where they are not on this machine.

    Raises:
        InputError: When there is no such run, it is not finished, or what it depends on has changed.
        RunError: When the backbone's weights are not on this machine.
    """
    from petlbench.run.load import restore

    return restore(find_run(run, results), catalog_of(catalog), device=device, download=download)


def predict(
    run: Folder,
    images: Folder | Iterable[Folder],
    results: Folder = "results",
    *,
    batch_size: int | None = None,
    image_column: str = "image",
    merge: bool = False,
    progress: bool = False,
    catalog: Folders = (),
    **options: Any,
) -> Predictions:
    """Class probabilities of images, from what a run has learned: ``.rows()``, ``.table()``.

    Args:
        run: As for `load`.
        images: Image files, folders of them, or CSV files that name them; one or several.
        results: As for `load`.
        batch_size: Images at once; None for the run's own.
        image_column: Column of a CSV file that names the images.
        merge: Whether what was learned is folded into the backbone first.
        progress: Whether a bar shows what goes on.
        catalog: Folders with methods of your own.
        options: ``device`` and ``download``, as for `load`.

    Raises:
        InputError: When there is no such run, or an image is absent or cannot be read.
    """
    from petlbench.run.load import restore
    from petlbench.run.predict import find_images

    several = [images] if isinstance(images, str | Path) else images
    folder = find_run(run, results)
    files = find_images([Path(each) for each in several], image_column)
    trained = restore(folder, catalog_of(catalog), **options)
    with shown_progress(progress) as shown:
        return (trained.merged() if merge else trained).probabilities(files, batch_size, shown)


def evaluate(
    run: Folder,
    on: str | Path,
    results: Folder = "results",
    *,
    progress: bool = False,
    **options: Any,
) -> Evaluation:
    """One more reading of a test set by a finished run: ``.metrics``, ``.intervals``, ``.robustness``, ….

    The reading is logged, and what came of it lies in the run's folder, whose result stays as it is. What stands
    already is returned, and nothing is read again.

    Args:
        run: As for `load`.
        on: Another dataset as `run` takes it, all of whose images are read; or that which the run was trained on, of
            which the test side is.
        results: As for `load`.
        progress: Whether a bar shows what goes on.
        options: Fields of `petlbench.run.evaluate.EvaluateRequest` (``test_set``, ``corruptions``, ``device``,
            ``download``) and of `petlbench.run.options.RunOptions` (``data_root``, ``workers``, ``rerun``), and
            ``catalog``: folders with methods, datasets, … of your own.

    Raises:
        InputError: When there is no such finished run, the dataset or its classes are wrong, or images of it are among
            those that the run was trained or selected on.
        RunError: When another process works on the run, or the backbone's weights are not on this machine.
    """
    from petlbench.results.folder import find_run
    from petlbench.run.evaluate import EvaluateRequest, evaluate_run
    from petlbench.run.keywords import sort_options, take
    from petlbench.run.options import RunContext

    folder = find_run(str(run), user_path(results, what="--output"))
    run_options, rest = sort_options({**options, "output": folder.output})
    request, unknown = take(EvaluateRequest, {**rest, "on": str(on)})
    for name in unknown:
        raise unknown_name("option of evaluate()", name, [each.name for each in fields(EvaluateRequest)])
    with shown_progress(progress) as shown:
        return evaluate_run(folder, request, RunContext(run_options, shown))


def export(
    run: Folder,
    results: Folder = "results",
    *,
    to: Folder | None = None,
    format: str = "all",  # noqa: A002 - the option's name
    download: bool = False,
    catalog: Folders = (),
    progress: bool = False,
) -> Exported:
    """A finished run as files that need no petlbench: for ONNX runtimes and for timm; ``.folder``, ``.files``.

    Args:
        run: The beginning of a run's id, or its folder.
        results: Folder of all results.
        to: Folder to write; None for ``export`` in the run's.
        format: ``onnx``, ``timm``, or ``all``, which leaves timm out where the method cannot be merged.
        download: As for `load`.
        catalog: Folders with methods of your own.
        progress: Whether a bar shows what goes on.

    Raises:
        InputError: When the run cannot be exported, a package is missing, or the folder holds something else.
        RunError: When a written file gives other probabilities than the run; nothing is left behind.
    """
    from petlbench.run.export import export_run

    folder = find_run(run, results)
    with shown_progress(progress) as shown:
        return export_run(folder, Path(to or folder / "export"), format, catalog_of(catalog), shown, download=download)
