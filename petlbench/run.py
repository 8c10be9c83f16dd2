"""ONE run, start to end: config in, result out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from petlbench.artifacts import ARTIFACTS, write_learned, write_predictions
from petlbench.assemble import (
    Assembled,
    assemble,
    augmentation_of,
    build_views,
    count_parameters,
    new_step,
    normalization,
)
from petlbench.catalog import Catalog
from petlbench.config import RunConfig, derive_seed
from petlbench.data.loader import ImageLoader, StoredImages
from petlbench.data.manifest import write_manifest
from petlbench.data.task import TaskData, load_task_data
from petlbench.data.views import View
from petlbench.environment import available_devices, describe_environment
from petlbench.errors import InputError
from petlbench.evaluation import Predictor, TestSplit
from petlbench.features.room import CachePlace
from petlbench.features.source import CachedFeatures, LiveFeatures
from petlbench.files import check_writable
from petlbench.identity import differences, identify
from petlbench.inference import measure_inference
from petlbench.memory.measure import MemoryMeter, open_meter
from petlbench.memory.shortage import is_shortage
from petlbench.method import Inputs
from petlbench.metrics import evaluate
from petlbench.preloading import open_source, preload
from petlbench.progress import Progress
from petlbench.recording import (
    Ending,
    describe_data,
    describe_failure,
    describe_memory,
    final_metrics,
    shortage_while_building,
)
from petlbench.result import FILE, Inference, Result, iter_results, read_result, write_result
from petlbench.run_folder import RunFolder
from petlbench.scores import score
from petlbench.step import balanced_weights
from petlbench.tracking import Tracker, open_tracker
from petlbench.training import Checkpoint, Selected, Trainer

__all__ = ["Place", "execute"]


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes, and how it is looked after: nothing here changes a number.

    Args:
        output: Folder of all results.
        data_root: Folder below which the images of cards lie.
        tracking_uri: MLflow's address, ``none``, or None for the default.
        cache_dir: Folder of the feature cache.
        workers: Threads that decode images.
        rerun: Run again even when a finished result stands.
        accept: Take a finished result although what it rests on has changed.
        cache_size: Largest size of the feature cache in bytes; None for no bound.
    """

    output: Path
    data_root: Path
    cache_dir: Path
    tracking_uri: str | None = None
    workers: int = 2
    rerun: bool = False
    accept: bool = False
    cache_size: int | None = None

    @property
    def cache(self) -> CachePlace:
        """The feature cache."""
        return CachePlace(self.cache_dir, self.cache_size)


def execute(config: RunConfig, place: Place, catalog: Catalog, progress: Progress) -> Result:
    """Carry out one run, or return its result where it is finished already.

    Args:
        config: The run.
        place: Where it reads and writes.
        catalog: The catalogues.
        progress: Told what goes on.

    Returns:
        The result: finished, or saying why not (``failed``, ``oom``, ``interrupted``).

    Raises:
        InputError: When data, weights or folders are wrong, or features find no room; nothing is left behind then.
        RunError: When another process works on this run, or weights cannot be fetched.
    """
    check_writable(place.output)
    tracker = open_tracker(place.tracking_uri, output=place.output)
    _repeatable(config.threads)
    device, started = _device(config), time.perf_counter()
    meter = open_meter(device)
    data = load_task_data(config, catalog, place.data_root, place.workers, progress)
    assembled = _build(config, catalog, len(data.dataset.classes), device, meter)
    digests = identify(config, catalog, data, assembled)
    folder = RunFolder(place.output, config.run_id)
    if (stored := _stored(folder, digests, place)) is not None:
        progress.say(f"{config.run_id} is finished already; --rerun runs it again")
        return stored
    run = _Run(config, place, data, assembled, meter, digests, folder, tracker, progress, device, started)
    with folder.locked():
        if place.rerun:
            folder.clear()
        return run.carry_out()


def _device(config: RunConfig) -> torch.device:
    available = available_devices()
    if config.device not in available:
        raise InputError(
            f"--device {config.device}: not available here",
            hint=f"available: {', '.join(available)}; a dry run can be made for any device",
            kind="bad_setting",
        )
    return torch.device(config.device)


def _build(
    config: RunConfig, catalog: Catalog, num_classes: int, device: torch.device, meter: MemoryMeter
) -> Assembled:
    try:
        with meter.phase("build"):
            return assemble(config, catalog, num_classes, device)
    except Exception as error:
        if is_shortage(error):
            raise shortage_while_building(error, config) from error
        raise


def _repeatable(threads: int) -> None:
    """Make torch give the same bits again on the same machine."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # The mode would also fill every new tensor, which only serves to find reads of memory that was never written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined, unused-ignore]


def _stored(folder: RunFolder, digests: dict[str, Any], place: Place) -> Result | None:
    """Return the finished result of this run, if it still stands for it."""
    if place.rerun or not _is_finished(folder):
        return None
    result = read_result(folder.final)
    changed = differences(result.digests, digests)
    if changed and not place.accept:
        raise InputError(
            f"{folder.final} is a finished result of this config, but it rests on something else: {'; '.join(changed)}",
            hint="--rerun runs it again, --accept takes the result as it is",
            kind="stale_result",
        )
    return result


def _is_finished(folder: RunFolder) -> bool:
    return (folder.final / FILE).exists() and read_result(folder.final).status == "finished"


@dataclass
class _Run:
    """One run under way; `carry_out` reads from top to bottom."""

    config: RunConfig
    place: Place
    data: TaskData
    assembled: Assembled
    meter: MemoryMeter
    digests: dict[str, Any]
    folder: RunFolder
    tracker: Tracker
    progress: Progress
    device: torch.device
    started: float
    seconds: dict[str, float] = field(default_factory=lambda: {"preload": 0.0})
    earlier: float = 0.0
    selected: Selected = field(default_factory=Selected)
    inference: Inference | None = None

    def __post_init__(self) -> None:
        config, info = self.config, self.assembled.backbone.info
        card = self.data.dataset.card
        self.normalization = normalization(config, card)
        augmentation = augmentation_of(config, card)
        self.views = build_views(config, self.assembled.method, info, self.normalization, augmentation)
        self.images = StoredImages(self.data.dataset)
        self.parameters = count_parameters(self.assembled)
        cache = self.place.cache
        self.source = open_source(config, self.assembled, self.views, self.data, cache=cache, device=self.device)

    def carry_out(self) -> Result:
        """Preload, train, test and record."""
        self.tracker.start(self.config.run_id, "petlbench", self.config.model_dump(mode="json"), self._tags())
        try:
            self._preload()
            self._prepare()
            predictor = Predictor(self.assembled.adapted.module, self.source, self.device, self.config.precision)
            self._train(predictor)
            ending = self._test(predictor)
            self.inference = self._measure_inference()
        except (Exception, KeyboardInterrupt) as error:  # whatever happens to a run, its result says so
            ending = describe_failure(error, self.config)
        return self._record(ending)

    def _preload(self) -> None:
        """Compute the frozen features of all images once, where the run wants that."""
        if not isinstance(self.source, CachedFeatures):
            return
        began = time.perf_counter()
        preload(
            self.source,
            self.data,
            self.views,
            cache=self.place.cache,
            workers=self.place.workers,
            meter=self.meter,
            progress=self.progress,
        )
        self.seconds["preload"] += time.perf_counter() - began

    def _prepare(self) -> None:
        """Let the method choose from the training images what it learns, where it does."""
        prepare = self.assembled.adapted.prepare
        if prepare is None:
            return
        began = time.perf_counter()
        self.progress.phase("choosing what is learned", len(self.data.indices["train"]))
        with self.meter.phase("prepare", (self.assembled.adapted.module,)):
            prepare(self._shown_once())
        self.seconds["prepare"] = time.perf_counter() - began

    def _shown_once(self) -> Iterator[tuple[Inputs, torch.Tensor]]:
        """The training images, not augmented, in an order that the seed decides, as pairs of inputs and labels."""
        loader = self._load("train", _plain(self._wanted_views()))
        # A dataset's own order may run from class to class, and a batch of one class says little.
        order = np.random.default_rng(derive_seed(self.config.seed, "prepare")).permutation(loader.indices)
        for batch in replace(loader, indices=order.tolist()).in_order():
            moved = batch.to(self.device)
            yield self.source(moved), moved.labels
            self.progress.advance(len(batch.index))

    def _train(self, predictor: Predictor) -> None:
        trainer = Trainer(
            adapted=self.assembled.adapted,
            step=new_step(self.config, self.assembled.adapted, self.source, self._class_weights()),
            predictor=predictor,
            train=self._loader("train"),
            val=self._loader("val"),
            config=self.config.training,
            seed=self.config.seed,
            progress=self.progress,
            on_epoch=self._report,
            watch=self._watch,
            measured=self.meter.phases,
        )
        self.folder.work.mkdir(parents=True, exist_ok=True)
        checkpoint = Checkpoint(self.folder.checkpoint, identity=json.dumps(self.digests, sort_keys=True))
        try:
            trainer.fit(checkpoint, self.selected)
        finally:
            self.seconds |= trainer.seconds
            self.earlier = trainer.earlier

    def _tags(self) -> dict[str, str]:
        card = self.data.dataset.card
        return {"method": self.config.method, "dataset": card.title, "synthetic": str(card.synthetic).lower()}

    def _class_weights(self) -> torch.Tensor | None:
        if self.config.training.class_weights == "none":
            return None
        labels = [self.data.dataset.records[index].label for index in self.data.indices["train"]]
        return balanced_weights(labels, len(self.data.dataset.classes)).to(self.device)

    def _test(self, predictor: Predictor) -> Ending:
        """Read the test split, once, with the epoch that validation chose."""
        began = time.perf_counter()
        with torch.no_grad():
            for name, tensor in self.assembled.adapted.kept().items():
                tensor.copy_(self.selected.learned[name])
        identity = {"dataset": self.config.dataset, "split": self.digests["split"], "run_id": self.config.run_id}
        test = TestSplit(self._loader("test"), self.place.output / "test_reads.jsonl", identity)
        self.progress.phase("validation", len(self.data.indices["val"]))
        outputs = {"val": predictor(self._loader("val"), self.progress.advance)}
        images = test.read()
        self.progress.phase("test", len(self.data.indices["test"]))
        outputs["test"] = predictor(images, self.progress.advance)
        self.seconds["evaluate"] += time.perf_counter() - began
        return Ending("finished", outputs=outputs)

    def _measure_inference(self) -> Inference:
        """Measure prediction as it would be deployed: with features computed live, whatever training did."""
        began = time.perf_counter()
        self.progress.phase("measuring prediction", 1)
        source = self.source.live if isinstance(self.source, CachedFeatures) else self.source
        predictor = Predictor(self.assembled.adapted.module, source, self.device, self.config.precision)
        sizes = {name: view.size for name, view in self.views.items()}
        measured = measure_inference(predictor, sizes, self.config.training.batch_size, self.meter)
        self.seconds["inference"] = time.perf_counter() - began
        return measured

    def _record(self, ending: Ending) -> Result:
        """Write the result as a whole and tell the tracker.

        A run that can go on keeps its checkpoint, and a finished result is never replaced by an unfinished one.
        """
        result = self._result(ending)
        result.scores = score(result, iter_results(self.place.output))
        draft = self.folder.new_draft()
        if ending.status == "finished":
            write_predictions(draft / ARTIFACTS["predictions"], self.data, ending.outputs)
            write_learned(draft / ARTIFACTS["learned"], self.selected.learned, self.config.run_id)
            write_manifest(self.data.manifest, draft / ARTIFACTS["manifest"])
        write_result(draft, result)
        if ending.status == "finished" or not _is_finished(self.folder):
            self.folder.publish()
        if not ending.resumable:
            self.folder.clear()
        self.tracker.finish(ending.status, final_metrics(result), self.folder.final)
        return result

    def _result(self, ending: Ending) -> Result:
        return Result(
            run_id=self.config.run_id,
            status=ending.status,
            config=self.config,
            best_epoch=self.selected.epoch or None,
            metrics={split: evaluate(labels, logits) for split, (labels, logits) in ending.outputs.items()},
            curve=self.selected.curve,
            parameters=self.parameters,
            memory=describe_memory(self.meter),
            inference=self.inference,
            timing={"total": time.perf_counter() - self.started + self.earlier, **self.seconds},
            data=describe_data(self.data, self.normalization),
            preprocessing={name: view.describe() for name, view in self.views.items()},
            digests=self.digests,
            environment=describe_environment(),
            artifacts=dict(ARTIFACTS) if ending.status == "finished" else {},
            error=ending.error,
        )

    def _report(self, entry: Mapping[str, Any]) -> None:
        self.progress.epoch(entry)
        self.tracker.log_epoch(entry["epoch"], {name: value for name, value in entry.items() if name != "epoch"})

    def _watch(self, phase: str, live: Sequence[object]) -> AbstractContextManager[None]:
        """Measure a phase; a backbone that works in every step lives beside what the step names."""
        at_work = (self.assembled.backbone.module,) if isinstance(self.source, LiveFeatures) else ()
        return self.meter.phase(phase, (*live, *at_work))

    def _loader(self, split: str) -> ImageLoader:
        views = self._wanted_views()
        return self._load(split, views if split == "train" else _plain(views))

    def _wanted_views(self) -> dict[str, View]:
        """The training views, without one whose features are known."""
        return {name: view for name, view in self.views.items() if name != self.source.spared_view}

    def _load(self, split: str, views: Mapping[str, View]) -> ImageLoader:
        batch_size = self.config.training.batch_size
        return ImageLoader(self.images, self.data.indices[split], views, batch_size, self.place.workers)


def _plain(views: Mapping[str, View]) -> dict[str, View]:
    return {name: view.without_augmentation() for name, view in views.items()}
