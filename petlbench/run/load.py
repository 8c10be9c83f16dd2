"""A finished run brought back: its module with what it learned, and the views that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from petlbench.core.catalog import Catalog
from petlbench.core.environment import available_devices, file_digest
from petlbench.core.errors import InputError, RunError
from petlbench.core.progress import Progress
from petlbench.core.text import printable
from petlbench.core.user_files import open_file
from petlbench.data.loader import Batch
from petlbench.data.tasks.base import Scale, TaskType
from petlbench.data.views import Normalization, View
from petlbench.features.source import FeatureSource, LiveFeatures, NoFeatures
from petlbench.models.backbone import Backbone, set_attention_kernel
from petlbench.models.build import Assembled, assemble
from petlbench.models.method import Adapted, Inputs, configured_method
from petlbench.models.precision import autocast
from petlbench.models.registry import resolve_backbone
from petlbench.models.weights import without_network
from petlbench.results.result import Result, read_result
from petlbench.run.predict import FoundImage, Predictions, decoded_batches, decoding_of, find_images
from petlbench.run.record import ARTIFACTS
from petlbench.run.resolve import build_views

if TYPE_CHECKING:
    import pandas


# A merged model is the backbone with a head, and this is the view that backbones read.
_MERGED_VIEW = "fine"


@dataclass(frozen=True)
class Restored:
    """A finished run, ready to be applied.

    Args:
        result: The run's result.
        assembled: Its method, backbone and adapted module, with what was learned.
        views: How an image is shown to it, by view name.
        device: Where it lives.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        module: ``forward(Inputs) -> logits``, in evaluation mode.
        source: Gives the frozen features.
        task: Its task type.
        scale: What the module's outputs are in, where that is not the labels' own unit.
        is_merged: Whether what was learned is part of the backbone's own layers.
    """

    result: Result
    assembled: Assembled
    views: Mapping[str, View]
    device: torch.device
    precision: str
    module: nn.Module
    source: FeatureSource
    task: TaskType
    scale: Scale | None = None
    is_merged: bool = False

    @property
    def classes(self) -> list[str]:
        """Class names, C of them."""
        return list(self.result.data["classes"])

    def predict(self, images: str | Path | Sequence[str | Path], batch_size: int | None = None) -> pandas.DataFrame:
        """Class probabilities of images.

        Args:
            images: Image files, folders of them, or CSV files with a column ``image``; one or several.
            batch_size: Images that are computed at once; None for the run's own.

        Returns:
            One row an image: ``image``, ``class``, and ``probability_CLASS`` for every class.

        Raises:
            InputError: When an image is absent or cannot be read.
        """
        paths = [images] if isinstance(images, str | Path) else list(images)
        return self.probabilities(find_images([Path(each) for each in paths]), batch_size).table()

    def probabilities(
        self, images: Sequence[FoundImage], batch_size: int | None = None, progress: Progress | None = None
    ) -> Predictions:
        """Class probabilities of the images that `find_images` named.

        Args:
            images: The images, N of them.
            batch_size: Images that are computed at once; None for the run's own.
            progress: Told the number of images.

        Raises:
            InputError: When an image cannot be read.
        """
        progress = progress or Progress()
        progress.phase("predict", len(images))
        logits = []
        size, decoding = batch_size or self.result.config.training.batch_size, decoding_of(self.result, images)
        for views in decoded_batches(images, self.views, size, decoding):
            moved = {name: view.to(self.device) for name, view in views.items()}
            logits.append(self(moved).to(torch.float32).cpu().numpy())
            progress.advance(len(logits[-1]))
        names = [str(image.file) for image in images]
        exact = np.concatenate(logits).astype(np.float64) / self.temperature
        probabilities, answer = self.task.probabilities(exact), self.task.answer
        return Predictions(self.result.run_id, self.classes, names, probabilities, answer, self.temperature)

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities; 1 where the run has fitted none."""
        return self.result.calibration.temperature if self.result.calibration is not None else 1.0

    @property
    def can_be_merged(self) -> bool:
        """Whether the method can fold what it learned into the backbone."""
        return self.assembled.adapted.merge is not None

    def __call__(self, views: Mapping[str, Tensor]) -> Tensor:
        """Apply the module; `temperature` is left to do.

        Args:
            views: Normalised images by view name, each (B, 3, size, size), on the device.

        Returns:
            Logits, (B, C); where they have a scale, in the labels' own unit.
        """
        nothing = torch.empty(0, dtype=torch.int64)
        with torch.no_grad(), autocast(self.device, self.precision):
            logits = cast("Tensor", self.module(self.source(Batch(nothing, views, nothing))))
        return logits if self.scale is None else self.scale.to_labels(logits.float())

    def merged(self, hint: str = "leave --merge out; the probabilities are the same") -> Restored:
        """Fold what was learned into the backbone, in place; this object must not be used any more.

        Raises:
            InputError: When the method cannot merge.
        """
        adapted, method = self.assembled.adapted, self.result.config.method
        if adapted.merge is None:
            message = f"what {method} learns cannot be folded into the backbone's own layers"
            raise InputError(message, hint=hint, kind="cannot_merge")
        with torch.no_grad():
            adapted.merge()
        module = _Merged(self.assembled.backbone, adapted).to(self.device).eval()
        set_attention_kernel(module, self.result.config.attention_kernel)
        views = {_MERGED_VIEW: self.views[_MERGED_VIEW]}
        return replace(self, views=views, module=module, source=NoFeatures(), is_merged=True)


class _Merged(nn.Module):
    """A backbone with everything folded in, and the head that reads its final feature."""

    def __init__(self, backbone: Backbone, adapted: Adapted) -> None:
        super().__init__()
        self._pooled = backbone.pooled
        self.backbone = backbone.module
        self.head = adapted.module.get_submodule("head")

    def forward(self, inputs: Inputs) -> Tensor:
        """Map the fine view (B, 3, H, W) to logits (B, C)."""
        return cast("Tensor", self.head(self._pooled(inputs.views[_MERGED_VIEW])))


def read_finished(folder: Path) -> Result:
    """Read the result of a finished run.

    Raises:
        InputError: When the run is not there, not finished, or says too little to be used.
    """
    result = read_result(folder)
    if result.status != "finished":
        raise InputError(
            f"run {result.run_id} is {result.status}, so it has learned nothing that can be used",
            hint="finish it first: the petlbench run command that began it goes on from its last epoch",
            kind="unfinished_run",
        )
    if "classes" not in result.data or "normalization" not in result.data:
        message = f"{folder} does not say its classes and how its images are normalised"
        raise InputError(message, hint="run it again with --rerun", kind="bad_result")
    return result


def restore(
    folder: Path,
    catalog: Catalog,
    *,
    device: str | None = None,
    precision: str | None = None,
    download: bool = False,
) -> Restored:
    """Build a finished run's module again and give it what was learned.

    A result may be somebody else's: it cannot make the hub be asked for anything that it names.

    Args:
        folder: The run's folder.
        catalog: The catalogues, in which the run's method is found.
        device: Where to build; None for the run's own device where it is there, else the CPU.
        precision: ``fp32``, ``bf16`` or ``fp16``; None for the run's own.
        download: Whether the backbone's weights may be fetched where they are not on this machine.

    Raises:
        InputError: When the run is not there or not finished, what it rests on has changed, or its files are not its
            own.
        RunError: When the backbone's weights are not on this machine.
    """
    result = read_finished(folder)
    config = result.config
    own = config.device if config.device in available_devices() else "cpu"
    place, extraction = torch.device(device or own), precision or config.features_precision
    precision = precision or config.precision
    _check_learned(folder, result)
    resolve_backbone(config.backbone, catalog)
    with nullcontext() if download else _no_download(config.backbone):
        assembled = assemble(config, configured_method(config, catalog), len(result.data["classes"]), place, catalog)
    _check_weights(result, assembled)
    hint = "the method's code or the file has changed since; run again with --rerun"
    assembled.adapted.load(folder / ARTIFACTS["learned"], f"{config.method} on {config.backbone}", hint)
    stored, scale = result.data["normalization"], result.data.get("scale")
    normalization = Normalization(tuple(stored["mean"]), tuple(stored["std"]), stored["origin"])
    source = LiveFeatures(assembled.backbone, assembled.frozen, extraction) if assembled.frozen is not None else None
    return Restored(
        result=result,
        assembled=assembled,
        views=dict(build_views(config, assembled.method, assembled.backbone.info, normalization)),
        device=place,
        precision=precision,
        module=assembled.adapted.module.eval(),
        source=source or NoFeatures(),
        task=catalog.load("task", result.data.get("task", "multiclass"), TaskType),
        scale=None if scale is None else Scale(scale["mean"], scale["std"]),
    )


@contextmanager
def _no_download(backbone: str) -> Iterator[None]:
    try:
        with without_network():
            yield
    except RunError as error:
        if error.kind != "weights_unavailable":
            raise
        message = f"the weights of {backbone} are not on this machine"
        raise RunError(message, hint="--download fetches them from the hub", kind=error.kind) from error


def _check_learned(folder: Path, result: Result) -> None:
    """Another run's tensors of the same shapes give probabilities that look right and mean nothing."""
    file, hint = folder / ARTIFACTS["learned"], "put the run's own file back, or run it again with --rerun"
    try:
        open_file(file, what="file of what was learned").close()
        with safe_open(file, "pt") as opened:
            owner = (opened.metadata() or {}).get("run_id")
    except (InputError, OSError, SafetensorError) as error:
        raise InputError(f"{file} cannot be read: {error}", hint=hint, kind="bad_result") from error
    if owner != result.run_id:
        message = f"{file} is not of run {result.run_id}, but of {printable(owner) if owner else 'none that it names'}"
        raise InputError(message, hint=hint, kind="bad_result")
    digest = result.digests.get("learned")
    if digest is not None and digest != file_digest(file):
        raise InputError(f"{file} has changed since run {result.run_id} wrote it", hint=hint, kind="bad_result")


def _check_weights(result: Result, assembled: Assembled) -> None:
    """A head on another backbone than its own gives probabilities that look right and mean nothing."""
    stored = result.digests.get("weights")
    if stored and stored != assembled.weights_digest:
        raise InputError(
            f"the weights of {result.config.backbone} ({result.config.weights}) are not those that run "
            f"{result.run_id} was trained on",
            hint="put the old weights back, or run it again with --rerun",
            kind="stale_result",
        )
