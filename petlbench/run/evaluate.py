"""One more reading of a test set by a finished run: another dataset, or the test side of its own."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petlbench.core.environment import describe_environment, make_repeatable
from petlbench.core.errors import InputError
from petlbench.core.files import check_writable, write_atomically
from petlbench.data.corruptions import Corruptions, load_corruptions
from petlbench.data.dataset import EXTERNAL, external_settings
from petlbench.data.loader import ImageLoader, ImageStore
from petlbench.data.manifest import read_manifest
from petlbench.data.record import Split
from petlbench.metrics.classification import evaluate, load_metrics
from petlbench.results.evaluation import FOLDER, Evaluation, read_evaluations, write_evaluation
from petlbench.results.folder import RunFolder
from petlbench.results.journal import READS_FILE
from petlbench.results.result import Calibration, Result
from petlbench.run.calibration import before_and_after
from petlbench.run.data import RunData, check_apart, load_run_data, open_test_set, opened_dataset, read_test_set
from petlbench.run.load import Restored, read_finished, restore
from petlbench.run.options import RunContext
from petlbench.run.record import ARTIFACTS, describe_images, describe_intervals, write_predictions
from petlbench.run.resolve import reference_of, resolve_config
from petlbench.run.robustness import measure_robustness
from petlbench.training.evaluation import Labels, Logits, Predictor, TestSplit
from petlbench.training.loss import Loss

_SPLIT: Split = "test"


@dataclass(frozen=True)
class EvaluateRequest:
    """What is to be read.

    Args:
        on: The test set, named as ``--dataset`` is: another dataset, all of whose images are read, or that which the
            run was trained on, of which the test side is.
        test_set: Settings of the test set, such as ``{"label_column": "grade"}``.
        corruptions: ``medmnistc``: the images are read with corruptions of their modality, too, in five severities;
            ``medmnistc:NAME`` for those of one of MedMNIST's datasets; None for the images as they are alone.
        device: Where to compute; None for the run's own device where it is there, else the CPU.
        download: Whether the backbone's weights may be fetched where they are not on this machine.
    """

    on: str
    test_set: Mapping[str, Any] = field(default_factory=dict)
    corruptions: str | None = None
    device: str | None = None
    download: bool = False


def evaluate_run(folder: RunFolder, request: EvaluateRequest, context: RunContext) -> Evaluation:
    """Read a test set with what a run has learned, and write scores and predictions beside its result.

    What stands already of the same run, images and corruptions is returned, and nothing is read again, but for
    ``rerun``.

    Raises:
        InputError: When there is no such finished run, the dataset or its classes are wrong, or images of it are among
            those that the run was trained or selected on; nothing is read or written then.
        RunError: When another process works on the run, or the backbone's weights are not on this machine.
    """
    result = read_finished(folder.final)
    reference = reference_of(request.on, context.catalog)
    check_apart(result.config.model_copy(update={"test_on": reference}), context.options)
    make_repeatable(result.config.threads)
    is_own = reference == result.config.dataset
    data = (
        _own_data(result, request, context)
        if is_own
        else _other_data(folder.final, result, reference, request, context)
    )
    corruptions = None
    if request.corruptions is not None:
        corruptions = load_corruptions(request.corruptions, data.dataset, context.catalog)
    test = _TestSet(reference, request.test_set, is_own, data, corruptions)
    name = test.name(result)
    if not context.options.rerun:
        for evaluation in read_evaluations(folder.final):
            if evaluation.name == name:
                context.progress.say(f"{name} stands already; --rerun reads the test set again")
                return evaluation
    check_writable(folder.final)
    with folder.locked():
        restored = restore(folder.final, context.catalog, device=request.device, download=request.download)
        return _read(folder, test, name, restored, context)


@dataclass(frozen=True)
class _TestSet:
    """What is read.

    Args:
        reference: As a config names it.
        settings: Its settings.
        is_own: Whether it is the test side of the run's own dataset.
        data: Its images; the test split counts alone.
        corruptions: What is done to them beside; None for nothing.
    """

    reference: str
    settings: Mapping[str, Any]
    is_own: bool
    data: RunData
    corruptions: Corruptions | None

    @property
    def digests(self) -> dict[str, str]:
        """What names the images; of another dataset as a run's ``external`` is named."""
        manifest = self.data.manifest
        return {"data": manifest.digest, "split": manifest.split_digest if self.is_own else manifest.digest}

    def name(self, result: Result) -> str:
        """A name of files: readable in front, behind it a digest of all that the figures hang on."""
        of = [self.reference, dict(self.settings), self.digests, str(result.digests.get("learned"))]
        of += [self.corruptions.dataset, self.corruptions.versions()] if self.corruptions is not None else []
        dataset = self.data.dataset.name.replace("/", "-")  # a card of a family
        return f"{dataset}-{hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:8]}"


def _own_data(result: Result, request: EvaluateRequest, context: RunContext) -> RunData:
    """The run's own dataset, split as the run has split it."""
    if request.test_set:
        message = f"--test-set {next(iter(request.test_set))}: {request.on} is what the run was trained on"
        raise InputError(message, hint="leave --test-set out: the run's own settings hold", kind="bad_setting")
    run = resolve_config(result.config, context.catalog, context.options.data_root)
    data = load_run_data(run, context, ImageStore(opened_dataset(run, context)))
    if data.manifest.digest != result.digests.get("data"):
        raise InputError(
            f"{request.on} is no longer as run {result.run_id} was trained on it, so that its test side is not known",
            hint="put the images back, or run it again with --rerun",
            kind="stale_result",
        )
    if not data.indices[_SPLIT]:
        message = f"{request.on} is what run {result.run_id} was trained on, and it has no test side"
        raise InputError(message, hint="name another dataset", kind="no_test_split")
    return data


def _other_data(folder: Path, result: Result, reference: str, request: EvaluateRequest, context: RunContext) -> RunData:
    """All images of another dataset, none of which the run may have been trained or selected on."""
    prefixed = {f"{EXTERNAL}{name}": value for name, value in request.test_set.items()}
    with external_settings(prefixed) as settings:
        dataset = open_test_set(reference, settings, result.data["classes"], context)
    data = read_test_set(dataset, result.config.skip_corrupt, context)
    manifest = read_manifest(folder / ARTIFACTS["manifest"], str(result.digests.get("data")))
    seen = manifest[manifest["split"] != _SPLIT]
    frame = data.manifest.frame
    shared = frame[frame["sha256"].isin(seen["sha256"])]
    if len(shared):
        raise InputError(
            f"{len(shared)} of {len(frame)} images of {request.on} are, byte for byte, images that run "
            f"{result.run_id} was trained or selected on, {shared['image_id'].iloc[0]} for one",
            hint=f"take them out, or name the run's own dataset, {result.config.dataset}: its test side is read",
            kind="trained_on",
        )
    return data


def _read(folder: RunFolder, test: _TestSet, name: str, restored: Restored, context: RunContext) -> Evaluation:
    """Read the test images, once more and logged, and write what came of it."""
    result, data, options = restored.result, test.data, context.options
    predictor = Predictor(restored.module, restored.source, restored.device, restored.precision, restored.scale)
    size, pinned = result.config.training.batch_size, restored.device.type == "cuda"
    loader = ImageLoader(data.images, data.indices[_SPLIT], restored.views, size, options.workers, pinned)
    identity = {"dataset": test.reference, "split": test.digests["split"], "run_id": result.run_id, "evaluation": name}
    images = TestSplit(loader, folder.output / READS_FILE, identity).read()
    context.progress.phase("test", len(images.indices))
    outputs: dict[str, tuple[Labels, Logits]] = {_SPLIT: predictor(images, context.progress.advance)}
    task = restored.task
    metrics = load_metrics(context.catalog, task.metrics, ordered=task.ordered, labels=task.labels.form)
    robustness = None
    if test.corruptions is not None:
        robustness = measure_robustness(predictor, images, task, test.corruptions, context.progress)
    evaluation = Evaluation(
        name=name,
        run_id=result.run_id,
        dataset=test.reference,
        settings=dict(test.settings),
        is_own=test.is_own,
        time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        metrics=evaluate(*outputs[_SPLIT], metrics, task.count),
        intervals=describe_intervals(data, None, outputs, metrics)[_SPLIT],
        calibration=_calibration(restored, outputs[_SPLIT], context),
        robustness=robustness,
        data=describe_images(data),
        digests={**test.digests, "learned": str(result.digests.get("learned"))},
        environment=describe_environment(),
        artifacts={"predictions": f"{name}.parquet"},
    )
    place = folder.final / FOLDER
    place.mkdir(exist_ok=True)
    with write_atomically(place / evaluation.artifacts["predictions"]) as temporary:
        write_predictions(temporary, data, None, outputs)
    write_evaluation(folder.final, evaluation)
    return evaluation


def _calibration(restored: Restored, output: tuple[Labels, Logits], context: RunContext) -> Calibration | None:
    """The run's temperature, which stays, with its figures on this test set."""
    fit, task = restored.result.calibration, restored.task
    if fit is None:
        return None
    loss = context.catalog.load("loss", task.loss, Loss)
    both = before_and_after(*output, fit.temperature, loss, task)
    return fit.model_copy(update={"figures": {_SPLIT: both} if both else {}})
