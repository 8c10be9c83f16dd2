"""Giving a finished run to other programs: a timm state dict, an ONNX graph, and how images have to be prepared."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import petlbench
from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError, RunError
from petlbench.core.files import check_writable, write_tensors
from petlbench.core.progress import Progress
from petlbench.data.loader import Batch
from petlbench.data.views import View
from petlbench.models.backbone import set_attention_kernel
from petlbench.models.registry import create_module
from petlbench.models.weights import classifier_names
from petlbench.run.load import Restored, read_finished, restore
from petlbench.run.model_card import model_card

# Its makers' builds keep a number of this machine on the disk and send what they do with models, unless they are told
# not to before they are loaded; the function does so where the system has that built in.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

FORMATS = ("all", "onnx", "timm")
TIMM_FILE, ONNX_FILE, DOCUMENT, CARD = "model.safetensors", "model.onnx", "preprocessing.json", "README.md"
# The second file of a graph whose tensors are too many for one.
_ONNX_DATA = f"{ONNX_FILE}.data"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# A protobuf file ends at 2 GiB; the graph itself takes some of it.
_LARGEST_FILE = int(1.9 * 2**30)
# Largest difference of a probability between the run's module and a written file.
_TOLERANCE = 1e-4
_SAMPLES = 3


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Args:
        run_id: The run.
        folder: Where the files lie.
        files: Sizes in bytes by file name.
        merged: Whether what was learned is part of the backbone's own layers.
        max_difference: Largest difference of a probability between the run's own module and a written file, on a few
            random images.
        temperature: What the run's logits are divided by in the files; 1 where it has fitted none.
    """

    run_id: str
    folder: Path
    files: Mapping[str, int]
    merged: bool
    max_difference: float
    temperature: float = 1.0

    def document(self) -> dict[str, Any]:
        """The export as plain values."""
        return {**asdict(self), "folder": str(self.folder), "files": list(self.files)}


def export_run(
    run: Path, to: Path, which: str, catalog: Catalog, progress: Progress, *, download: bool = False
) -> Exported:
    """Write a finished run as files that need no petlbench, and check that they give the same probabilities.

    Args:
        run: The run's folder.
        to: The folder to write, whole or not at all; an older export in it is replaced.
        which: One of `FORMATS`; ``all`` leaves timm's file out where the method cannot be merged.
        catalog: The catalogues, in which the run's method is found.
        progress: Told what goes on.
        download: As of `restore`.

    Raises:
        InputError: When the run cannot be exported, a package is missing, or the folder holds something else.
        RunError: When a written file gives other probabilities than the run; nothing is left behind.
    """
    read_finished(run)
    _check_folder(to)
    if which != "timm":
        _require_packages()
    progress.phase("build the run's module", 1)
    # Other programs get plain 32-bit numbers, whatever the run computed with.
    restored = restore(run, catalog, device="cpu", precision="fp32", download=download)
    reference = _Reference.of(restored)
    if restored.can_be_merged or which == "timm":
        restored = restored.merged("timm knows its own layers alone; use --format onnx")
    with _whole_or_absent(to) as draft:
        difference, description = _write(draft, restored, which, reference, progress)
        (draft / CARD).write_text(model_card(restored.result, description, catalog), encoding="utf-8")
        sizes = {file.name: file.stat().st_size for file in sorted(draft.iterdir())}
    return Exported(restored.result.run_id, to, sizes, restored.is_merged, difference, restored.temperature)


@dataclass(frozen=True)
class _Reference:
    """What a run's own module says of images by view name, each (B, 3, size, size), from 0 to 1: a row (C,) each."""

    images: Mapping[str, Tensor]
    probabilities: Tensor
    tolerance: float

    @classmethod
    def of(cls, restored: Restored) -> _Reference:
        """Draw the images and apply the module to them."""
        generator, views = torch.Generator().manual_seed(0), restored.views
        images = {
            name: torch.rand(_SAMPLES, 3, view.size, view.size, generator=generator) for name, view in views.items()
        }
        probabilities = restored.task.activation(restored(_normalized(images, views)) / restored.temperature)
        return cls(images, probabilities, _TOLERANCE * (1.0 if restored.scale is None else restored.scale.std))

    def difference(self, probabilities: Tensor, name: str) -> float:
        """Largest difference of the probabilities (B, C) that a written file gives; too large a one is an error."""
        largest = (probabilities - self.probabilities).abs().max().item()
        if not largest < self.tolerance:  # a difference that is no number is none to accept
            raise RunError(
                f"{name} gives other probabilities than the run: they differ by up to {largest:.2g}",
                hint="nothing was written; the method's merge may be wrong, or its module cannot be exported as it is",
                kind="export_mismatch",
            )
        return largest


def _write(
    draft: Path, restored: Restored, which: str, reference: _Reference, progress: Progress
) -> tuple[float, dict[str, Any]]:
    """Write the files into a folder; return their largest difference from the reference, and what they are."""
    differences, opset, images = [], None, reference.images
    if restored.is_merged and which != "onnx":
        progress.phase("write timm's file", 1)
        _write_timm(draft / TIMM_FILE, restored)
        differences.append(reference.difference(_timm_probabilities(draft / TIMM_FILE, restored, images), TIMM_FILE))
    if which != "timm":
        progress.phase("write the ONNX file", 1)
        opset = _write_onnx(draft / ONNX_FILE, restored, images)
        differences.append(reference.difference(_onnx_probabilities(draft / ONNX_FILE, restored, images), ONNX_FILE))
    description = _describe(restored, opset)
    (draft / DOCUMENT).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return max(differences), description


def _normalized(images: Mapping[str, Tensor], views: Mapping[str, View]) -> dict[str, Tensor]:
    """Bring images from 0 to 1 to what the module takes."""
    normalized = {}
    for name, view in views.items():
        mean, std = (torch.tensor(part).view(3, 1, 1) for part in (view.normalization.mean, view.normalization.std))
        normalized[name] = (images[name] - mean) / std
    return normalized


def _write_timm(file: Path, restored: Restored) -> None:
    """Write the merged backbone with its head as the state dict of a timm classifier."""
    config, model = restored.result.config, restored.assembled.backbone.module
    # A linear head whose tensors are divided gives logits that are.
    tensors_of_head = restored.module.get_submodule("head").state_dict()
    head = {name: tensor / restored.temperature for name, tensor in tensors_of_head.items()}
    if restored.scale is not None:  # timm's model says what the run says: labels in their own unit
        head = {"weight": head["weight"] * restored.scale.std, "bias": restored.scale.to_labels(head["bias"])}
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    # A distilled DeiT averages the logits of two heads; the final feature is the mean of what they read, so both are
    # the one that was learned. safetensors wants a copy for each.
    for classifier in classifier_names(model):
        tensors |= {f"{classifier}.{name}": tensor.detach().clone() for name, tensor in head.items()}
    info = restored.assembled.backbone.info
    about = {"format": "pt", "run_id": restored.result.run_id, "architecture": info.timm}
    about |= {"arguments": json.dumps(info.arguments)} if info.arguments else {}
    about |= {"image_size": str(config.image_size), "labels": json.dumps(restored.classes)}
    write_tensors(file, tensors, about)


def _timm_probabilities(file: Path, restored: Restored, images: Mapping[str, Tensor]) -> Tensor:
    """Load a file as its reader would, and compute probabilities, (B, C)."""
    config = restored.result.config
    model = create_module(restored.assembled.backbone.info, len(restored.classes))
    try:
        model.load_state_dict(load_file(file), strict=True)
    except RuntimeError as error:
        raise RunError(
            f"{file.name} does not fit timm's {config.backbone}: {' '.join(str(error).split())}",
            hint="nothing was written; the method's merge leaves something behind. Use --format onnx",
            kind="export_mismatch",
        ) from error
    with torch.no_grad():
        (image,) = _normalized(images, restored.views).values()
        return restored.task.activation(cast("Tensor", model.eval()(image)))


class _Graph(nn.Module):
    """What the ONNX file holds: from images in 0 to 1, one for each view, to logits and probabilities."""

    def __init__(self, restored: Restored) -> None:
        super().__init__()
        self._views, self._source, self._temperature = restored.views, restored.source, restored.temperature
        self._scale, self._activation = restored.scale, restored.task.activation
        self.module = restored.module
        # The frozen features come from it; as a child, its tensors are seen.
        self.backbone = restored.assembled.backbone.module

    def forward(self, *images: Tensor) -> tuple[Tensor, Tensor]:
        """Map the views, each (B, 3, size, size), to logits and probabilities, each (B, C)."""
        views = _normalized(dict(zip(self._views, images, strict=True)), self._views)
        nothing = torch.empty(0, dtype=torch.int64)
        logits = self.module(self._source(Batch(nothing, views, nothing))) / self._temperature
        logits = logits if self._scale is None else self._scale.to_labels(logits)
        return logits, self._activation(logits)


def _write_onnx(file: Path, restored: Restored, images: Mapping[str, Tensor]) -> int:
    """Write the ONNX file and return the version of its operators."""
    graph = _Graph(restored).eval()
    # Explicit attention is made of operators that every runtime has.
    set_attention_kernel(graph, "eager")
    example = tuple(images[name] for name in restored.views)
    program = _converted(graph, example, list(restored.views), restored.task.answer.values)
    opset = int(program.model.opset_imports[""])
    document = _describe(restored, opset)
    program.model.metadata_props["labels"] = json.dumps(restored.classes)
    program.model.metadata_props["preprocessing"] = json.dumps(document)
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
    program.save(str(file), external_data=size > _LARGEST_FILE)
    return opset


def _converted(graph: nn.Module, example: tuple[Tensor, ...], names: list[str], values: str) -> Any:
    """Turn a module into an ONNX program whose batch may have any size."""
    try:
        with torch.no_grad(), _quiet():
            return torch.onnx.export(
                _captured(graph, example),
                example,
                input_names=names,
                output_names=["logits", values],
                dynamic_shapes=_dynamic(example),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds, all of which mean the same to the user
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise RunError(
            f"the module cannot be written as an ONNX graph: {type(error).__name__}: {first}",
            hint="nothing was written; add --debug to see where, or use --format timm where the method can be merged",
            kind="export_failed",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling the user about its own optimisations."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _captured(graph: nn.Module, example: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    dynamic = _dynamic(example)
    try:
        return torch.export.export(graph, example, dynamic_shapes=dynamic)
    except Exception:
        # Where Python asks for a plain number, as len() does, running the module fixes the size of the batch. Reading
        # its code does not, but copes with less Python.
        return torch.export.export(graph, example, dynamic_shapes=dynamic, strict=True)


def _dynamic(example: tuple[Tensor, ...]) -> tuple[tuple[dict[int, torch.export.Dim], ...]]:
    batch = torch.export.Dim("batch")
    return (tuple({0: batch} for _ in example),)


def _onnx_probabilities(file: Path, restored: Restored, images: Mapping[str, Tensor]) -> Tensor:
    """Run a file by ONNX Runtime and return probabilities, (B, C)."""
    runtime: Any = importlib.import_module("onnxruntime")
    runtime.disable_telemetry_events()
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    inputs = {name: images[name].numpy() for name in restored.views}
    (probabilities,) = session.run([restored.task.answer.values], inputs)
    return torch.from_numpy(probabilities)


def _require_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"an export to ONNX needs {', '.join(missing)}, which is not installed",
            hint="pip install 'petlbench[export]', or use --format timm",
            kind="missing_package",
        )


def _describe(restored: Restored, opset: int | None) -> dict[str, Any]:
    """Say all that a program needs to feed the model and to read its answer."""
    config, info = restored.result.config, restored.assembled.backbone.info
    return {
        "run_id": restored.result.run_id,
        "method": config.method,
        "task": restored.task.name,
        "backbone": config.backbone,
        "timm_model": {"name": info.timm, "arguments": dict(info.arguments)},
        "merged": restored.is_merged,
        "labels": restored.classes,
        "temperature": restored.temperature,
        "calibration": "logits are divided by the temperature in the files, so that there is nothing left to do",
        "image": "first frame, turned as its EXIF orientation says, 8-bit RGB; 16-bit greys are divided by 257, "
        "transparent parts become black",
        "views": {name: _describe_view(view) for name, view in restored.views.items()},
        "onnx": "one input for each view, named after it: float32, RGB, pixel values divided by 255, "
        "(batch, 3, size, size); it is normalised inside the graph; outputs: logits and "
        f"{restored.task.answer.values}, (batch, labels)",
        "timm": "the same input, normalised: (value - mean) / std; output: logits, (batch, labels)",
        "opset": opset,
        "petlbench": petlbench.__version__,
    }


def _describe_view(view: View) -> dict[str, Any]:
    return {
        "size": view.size,
        "interpolation": view.filter,
        "resize": f"the whole image to {view.size} x {view.size} pixels ({view.filter}, antialiased) on 8-bit RGB, by "
        "torchvision's resize; Pillow's Image.resize differs from it by one level of 255 in some pixels; "
        "width and height each for itself, so that nothing is cropped or padded",
        "mean": list(view.normalization.mean),
        "std": list(view.normalization.std),
    }


def _check_folder(folder: Path) -> None:
    """Check that an export can be written, and replaces nothing but an older one."""
    hint = "name another folder with --to"
    try:
        check_writable(folder.absolute().parent)
    except InputError as error:
        raise InputError(error.message, hint=hint, kind=error.kind) from error
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file", hint=hint, kind="not_writable")
    held = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    if held and not (DOCUMENT in held and held <= {TIMM_FILE, ONNX_FILE, _ONNX_DATA, DOCUMENT, CARD}):
        message = f"the folder {folder} holds something else than an export"
        raise InputError(message, hint=hint, kind="folder_in_use")


@contextmanager
def _whole_or_absent(folder: Path) -> Iterator[Path]:
    """Give a folder to write to; it takes the other's place when the block ends well and goes when it fails."""
    final = folder.absolute()
    absent = [parent for parent in final.parents if not parent.exists()]
    draft, old = (final.with_name(f".{final.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    draft.mkdir(parents=True)
    try:
        yield draft
        if final.exists():
            final.rename(old)
        draft.rename(final)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(folder)
        shutil.rmtree(draft, ignore_errors=True)
        with suppress(OSError):  # something else came to lie there
            for parent in absent:
                parent.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)
