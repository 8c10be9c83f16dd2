"""What runs have learned, put to use: on models of one's own, on other images, on other test sets, elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.api.results import find_run
from petlbench.core.catalog import Folder, Folders, catalog_of
from petlbench.core.errors import unknown_name
from petlbench.core.progress_bars import shown_progress
from petlbench.core.user_files import user_path

if TYPE_CHECKING:
    from torch import nn

    from petlbench.models.adapted_model import AdaptedModel
    from petlbench.models.method import Method
    from petlbench.results.evaluation import Evaluation
    from petlbench.run.export import Exported
    from petlbench.run.load import Restored
    from petlbench.run.predict import Predictions


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
        options: ``device``, ``download`` and ``catalog``, as for `load`.

    Raises:
        InputError: When there is no such run, or an image is absent or cannot be read.
    """
    from petlbench.run.load import restore
    from petlbench.run.predict import find_images

    several = [images] if isinstance(images, str | Path) else images
    folder = find_run(run, results)
    files = find_images([Path(each) for each in several], image_column)
    trained = restore(folder, catalog_of(options.pop("catalog", ())), **options)
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
