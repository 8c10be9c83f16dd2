"""ONE run, start to end: config in, result out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from petlbench.core.config import derive_seed
from petlbench.core.environment import choose_device, describe_environment, file_digest, make_repeatable
from petlbench.core.files import check_writable, write_tensors
from petlbench.data.loader import ImageLoader
from petlbench.data.record import Split
from petlbench.data.tasks.base import metrics_of
from petlbench.data.views import View, by_split
from petlbench.features.source import CachedFeatures, FeatureSource
from petlbench.memory.measure import MemoryMeter, open_meter
from petlbench.metrics.classification import evaluate
from petlbench.metrics.metric import Metric
from petlbench.models.build import Assembled, count_parameters
from petlbench.models.method import Inputs
from petlbench.models.precision import autocast
from petlbench.results.folder import RunFolder, remove_leftovers
from petlbench.results.journal import READS_FILE, write_event
from petlbench.results.result import Calibration, Inference, Result, write_result
from petlbench.results.stored import final_metrics
from petlbench.results.table import with_scores
from petlbench.results.tracking.sender import BackgroundTracker, open_tracker
from petlbench.run.build import build_module
from petlbench.run.calibration import calibrate
from petlbench.run.compilation import as_written, check_compiler, compile_module
from petlbench.run.data import RunData, check_apart, load_external_data, load_run_data, opened_dataset
from petlbench.run.failure import Ending, describe_failure
from petlbench.run.image_cache import check_disk, fill_disk
from petlbench.run.inference_cost import InferenceCost
from petlbench.run.options import RunContext
from petlbench.run.preload import deployed, open_source, preload
from petlbench.run.readings import KeptReadings, Outputs, TestReader
from petlbench.run.record import (
    ARTIFACTS,
    Stopwatch,
    describe_data,
    describe_intervals,
    describe_memory,
    identify,
    score_groups,
    standing_result,
    write_attributes,
    write_predictions,
)
from petlbench.run.resolve import ResolvedRun
from petlbench.run.selection import run_selection
from petlbench.training.evaluation import Predictor
from petlbench.training.loss import Loss
from petlbench.training.step import new_step
from petlbench.training.trainer import Checkpoint, Selected, Trainer


def execute(run: ResolvedRun, context: RunContext) -> Result:
    """Carry out one run, or return its result where it is finished already.

    Returns:
        The result: finished, or saying why not (``failed``, ``oom``, ``interrupted``).

    Raises:
        InputError: When data, weights or folders are wrong, or features find no room; nothing is left behind then.
        RunError: When another process works on this run, or weights cannot be fetched.
    """
    config, options = run.config, context.options
    check_writable(options.output)
    check_apart(config, options)
    remove_leftovers(options.output)
    tracker = open_tracker(options.tracking_uri, options.output)
    make_repeatable(config.threads)
    device, watch = choose_device(config.device), Stopwatch.of_command()
    check_compiler(config)
    meter = open_meter(device)
    folder = RunFolder(options.output, config.run_id)
    with watch.phase("data"):
        dataset = opened_dataset(run, context)
        metrics = metrics_of(dataset.task, context.catalog)
        if folder.is_finished and not options.rerun:  # images are read to be checked, and most likely no further
            images = context.parts.open_images("none", dataset, run, options.cache)
        else:
            tracker.prepare()
            images = context.parts.open_images(options.cache_images, dataset, run, options.cache)
        data = load_run_data(run, context, images)
    with watch.phase("build"):
        assembled = build_module(run, context, data.dataset, device, meter)
    with watch.phase("data"):
        external = load_external_data(run, context, data)
    digests = identify(config, context.catalog, data, assembled, external)
    if (stored := standing_result(folder, digests, options)) is not None:
        context.progress.say(f"{config.run_id} is finished already; --rerun runs it again")
        return stored
    work = _Run(run, context, data, external, assembled, meter, digests, folder, tracker, device, watch, metrics)
    with folder.locked():
        if (stored := standing_result(folder, digests, options)) is not None:
            return stored  # another process has finished it meanwhile
        if options.rerun:
            folder.clear()
        return work.carry_out()


@dataclass
class _Run:
    """One run under way; `carry_out` reads from top to bottom."""

    run: ResolvedRun
    context: RunContext
    data: RunData
    external: RunData | None
    assembled: Assembled
    meter: MemoryMeter
    digests: dict[str, Any]
    folder: RunFolder
    tracker: BackgroundTracker
    device: torch.device
    watch: Stopwatch
    metrics: Sequence[Metric]
    earlier: float = 0.0
    selected: Selected = field(default_factory=Selected)
    inference: Inference | None = None

    def __post_init__(self) -> None:
        self.config, self.views = self.run.config, self.run.views
        self.options, self.progress = self.context.options, self.context.progress
        self.parameters = count_parameters(self.assembled)
        self.task = self.data.dataset.task
        self.selection = run_selection(self.config, self.data, self.metrics, self.progress)
        self.scale = self.task.scale(self.data.labels("train"))
        check_disk(self.data.images, self.data.indices, self.options.cache)
        self.source = self._open_source(self.data)
        self.external_source = None if self.external is None else self._open_source(self.external)

    def _open_source(self, data: RunData) -> FeatureSource:
        return open_source(self.run, self.assembled, data, context=self.context, device=self.device)

    def carry_out(self) -> Result:
        """Preload, train, test and record."""
        config, options = self.config.model_dump(mode="json"), self.options
        with self.watch.phase("tracking"):
            self.tracker.start(self.config.run_id, options.experiment, config, self._tags(), group=options.group)
        try:
            self._store_images()
            self._preload(self.source, self.data)
            if self.external is not None:
                self._preload(self.external_source, self.external)
            self._prepare()
            self._check_module()
            self._compile()
            predictor = self._predictor(self.source)
            self._train(predictor)
            ending = self._test(predictor)
            if self.options.reveal_test:
                self.inference = self._measure_inference()
        except BaseException as error:  # whatever happens to a run, its result says so
            ending = describe_failure(error, self.config)
        return self._record(ending)

    def _store_images(self) -> None:
        """Put the images on the disk, where the run keeps them there."""
        if self.options.cache_images == "disk":
            with self.watch.phase("store_images"):
                fill_disk(self.data.images, self.data.indices, self.options.cache, self.options.workers, self.progress)

    def _preload(self, source: FeatureSource | None, data: RunData) -> None:
        """Compute the frozen features of all images once, where the run wants that."""
        if isinstance(source, CachedFeatures):
            with self.watch.phase("preload"):
                preload(source, data, self.views, meter=self.meter, context=self.context)

    def _prepare(self) -> None:
        """Let the method choose from the training images what it learns, where it does."""
        prepare = self.assembled.adapted.prepare
        if prepare is None:
            return
        self.progress.phase("choosing what is learned", len(self.data.indices["train"]))
        with self.watch.phase("prepare"), self.meter.phase("prepare", (self.assembled.adapted.module,)):
            prepare(self._shown_once())

    def _check_module(self) -> None:
        """See once, on two images, that what is trained gives logits that depend on what it learns."""
        side: Split = "val" if self.data.indices["val"] else "train"
        loader = self._load(side, by_split(self._views_read())["val"])
        batch = loader.first(2).to(self.device)
        inputs, classes = self.source(batch), len(self.data.dataset.classes)
        with autocast(self.device, self.config.precision):
            self.assembled.adapted.check(inputs, batch.labels, classes)

    def _compile(self) -> None:
        """Compile what is trained, where the run wants that."""
        if self.config.compile:
            self.progress.phase("compiling", 1)
            with self.watch.phase("compile"):
                batch = self._loader("train").first(self.config.training.micro_batch_size).to(self.device)
                compile_module(self.assembled.adapted, self.source(batch), self.config)

    def _shown_once(self) -> Iterator[tuple[Inputs, torch.Tensor]]:
        """The training images, not augmented, in an order that the seed decides, as pairs of inputs and labels."""
        loader = self._load("train", by_split(self._views_read())["val"])
        # A dataset's own order may run from class to class, and a batch of one class says little.
        order = np.random.default_rng(derive_seed(self.config.seed, "prepare")).permutation(loader.indices)
        for batch in replace(loader, indices=order.tolist()).in_order():
            moved = batch.to(self.device)
            yield self.source(moved), moved.labels
            self.progress.advance(len(batch.index))

    def _train(self, predictor: Predictor) -> None:
        trainer = Trainer(
            adapted=self.assembled.adapted,
            step=new_step(
                self.config, self.assembled.adapted, self.source, self._class_weights(), self.run.loss, scale=self.scale
            ),
            predictor=predictor,
            train=self._loader("train"),
            val=self._loader("val"),
            config=self.config.training,
            seed=self.config.seed,
            metrics=self.metrics,
            selection=self.selection,
            count=self.task.count,
            progress=self.progress,
            on_start=self._begin,
            on_epoch=self._report,
            watch=self._watch,
            read_test=self._epoch_readings(predictor),
            measured=self.meter.phases,
        )
        self.folder.work.mkdir(parents=True, exist_ok=True)
        checkpoint = Checkpoint(self.folder.checkpoint, identity=json.dumps(self.digests, sort_keys=True))
        try:
            trainer.fit(checkpoint, self.selected)
        finally:
            self.watch.seconds |= trainer.seconds
            self.earlier = trainer.earlier

    def _tags(self) -> dict[str, str]:
        card, kind = self.data.dataset.card, "run" if self.options.reveal_test else "trial"
        tags = {"method": self.config.method, "dataset": card.title, "synthetic": str(card.synthetic).lower()}
        return {**tags, "petlbench.kind": kind}

    def _class_weights(self) -> torch.Tensor | None:
        weights = self.data.balanced_weights() if self.config.training.class_weights != "none" else None
        return None if weights is None else torch.from_numpy(weights).float().to(self.device)

    def _test(self, predictor: Predictor) -> Ending:
        """Read the test split, once and where it is revealed, with the epoch that was chosen.

        What was read is kept until the result stands: an attempt that is killed in between reads nothing again.
        """
        identity = json.dumps([self.digests, self.selected.epoch, self.selected.curve], sort_keys=True)
        kept = KeptReadings(self.folder.work / "readings.safetensors", identity)
        with self.watch.phase("evaluate"):
            with torch.no_grad():
                for name, tensor in self.assembled.adapted.kept().items():
                    tensor.copy_(self.selected.learned[name])
            outputs = {"val": self._read_val(predictor)} if self.data.indices["val"] else {}
            if self.options.reveal_test:
                outputs |= {split: kept.once(split, read) for split, read in self._test_readings(predictor).items()}
        return Ending("finished", outputs=outputs)

    def _test_readings(self, predictor: Predictor) -> dict[str, Callable[[bool], Outputs]]:
        """How the labels and logits of each split are had that is tested on."""
        loader, reader = self._loader("test"), self._reader(predictor)
        readings: dict[str, Callable[[bool], Outputs]] = {}
        if loader.indices:  # a dataset's own parts may be for training and validation alone
            readings["test"] = partial(reader.read_once, loader)
        if self.external is not None and self.external_source is not None:
            loader = replace(loader, images=self.external.images, indices=self.external.indices["test"])
            predictor = self._predictor(self.external_source)
            external = self._reader(predictor, self.config.test_on, self.digests["external"])
            readings["external"] = partial(external.read_once, loader)
        return readings

    def _epoch_readings(self, predictor: Predictor) -> Callable[[int], Outputs] | None:
        """How the test split is read after an epoch; None where it is not, as nowhere but under a protocol for that."""
        loader = self._loader("test")
        if not (self.config.test_every_epoch and loader.indices):
            return None
        return partial(self._reader(predictor).read_after, loader)

    def _reader(self, predictor: Predictor, dataset: str = "", split: str = "") -> TestReader:
        """What reads a test split, the run's own where none is named."""
        identity = {"dataset": dataset or self.config.dataset, "split": split or self.digests["split"]}
        return TestReader(
            predictor,
            self.options.output / READS_FILE,
            {**identity, "run_id": self.config.run_id},
            self.progress,
            is_hidden=not self.options.reveal_test,
        )

    def _read_val(self, predictor: Predictor) -> Outputs:
        self.progress.phase("validation", len(self.data.indices["val"]))
        return predictor(self._loader("val"), self.progress.advance)

    def _predictor(self, source: FeatureSource) -> Predictor:
        return Predictor(self.assembled.adapted.module, source, self.device, self.config.precision, self.scale)

    def _measure_inference(self) -> Inference | None:
        """Measure prediction as it would be deployed: with features computed live, whatever training did."""
        self.progress.phase("measuring prediction", 1)
        source = deployed(self.source, self.assembled, self.config.features_precision)
        cost = InferenceCost(self.run, self.context, len(self.data.dataset.classes))
        with self.watch.phase("inference"), as_written(self.config):
            return cost.measure(self._predictor(source), self.meter, self.watch.spent)

    def _record(self, ending: Ending) -> Result:
        """Write the result as a whole and tell the tracker.

        A run that can go on keeps its checkpoint, and a finished result is never replaced by an unfinished one.
        """
        [result] = with_scores([self._result(ending)], self.options.output)
        draft = self.folder.new_draft()
        if ending.status == "finished":
            write_predictions(draft / ARTIFACTS["predictions"], self.data, self.external, ending.outputs)
            learned = draft / ARTIFACTS["learned"]
            write_tensors(learned, self.selected.learned, {"run_id": self.config.run_id})
            result.digests["learned"] = file_digest(learned)
            self.data.manifest.write(draft / ARTIFACTS["manifest"])
            result.artifacts |= write_attributes(draft, self.data)
        write_result(draft, result)
        if ending.status == "finished" or not self.folder.is_finished:
            self.folder.publish()
        if not ending.resumable:
            self.folder.clear()
        with suppress(OSError):  # the result stands, whether or not a full disk takes this line
            write_event(self.options.output, "ended", self.config.run_id, status=ending.status)
        self.tracker.finish(ending.status, final_metrics(result), self.folder.final, curve=result.curve)
        return result

    def _result(self, ending: Ending) -> Result:
        by_group = score_groups(self.data, self.external, ending.outputs, self.metrics, self.config.aggregate)
        return Result(
            run_id=self.config.run_id,
            status=ending.status,
            config=self.config,
            best_epoch=self.selected.epoch or None,
            metrics={split: evaluate(*read, self.metrics, self.task.count) for split, read in ending.outputs.items()},
            intervals=describe_intervals(self.data, self.external, ending.outputs, self.metrics),
            metrics_by_group={split: scores for split, (scores, _) in by_group.items()},
            intervals_by_group={split: intervals for split, (_, intervals) in by_group.items()},
            curve=self.selected.curve,
            parameters=self.parameters,
            memory=describe_memory(self.meter),
            inference=self.inference,
            calibration=self._calibration(ending),
            origin=self.options.origin,
            timing=self.watch.timing(self.earlier),
            data=describe_data(
                self.data, self.run.normalization, self.external, self.source, metrics=self.metrics, scale=self.scale
            )
            | self.selection.describe(),
            preprocessing={name: view.describe() for name, view in self.views.items()},
            digests=dict(self.digests),
            environment=describe_environment(),
            artifacts=dict(ARTIFACTS) if ending.status == "finished" else {},
            error=ending.error,
        )

    def _calibration(self, ending: Ending) -> Calibration | None:
        """The temperature that validation gives, where the run is to have one."""
        if self.config.calibrate == "none" or "val" not in ending.outputs:
            return None
        return calibrate(ending.outputs, self.context.catalog.load("loss", self.task.loss, Loss), self.task)

    def _begin(self, epochs: int) -> None:
        write_event(self.options.output, "started", self.config.run_id, epoch=epochs)

    def _report(self, entry: Mapping[str, Any]) -> None:
        write_event(self.options.output, "epoch", self.config.run_id, epoch=entry["epoch"])
        self.progress.epoch(entry, self.selection.words(entry))
        with self.watch.phase("tracking"):
            self.tracker.log_epoch(entry["epoch"], {name: value for name, value in entry.items() if name != "epoch"})

    def _watch(self, phase: str, live: Sequence[object]) -> AbstractContextManager[None]:
        """Measure a phase; what features come from in every step lives beside what the step names."""
        # Where tensors are counted, torch runs a compiled module as it is written.
        return self.meter.phase(phase, () if self.config.compile else (*live, *self.source.beside))

    def _loader(self, split: Split) -> ImageLoader:
        return self._load(split, by_split(self._views_read())[split])

    def _views_read(self) -> dict[str, View]:
        """The training views, without one whose features are known."""
        return {name: view for name, view in self.views.items() if name != self.source.spared_view}

    def _load(self, split: Split, views: Mapping[str, View]) -> ImageLoader:
        training, pinned = self.config.training, self.device.type == "cuda"
        indices, size = self.data.indices[split], training.batch_size
        keeps_last = training.drop_last is False
        return ImageLoader(self.data.images, indices, views, size, self.options.workers, pinned, keeps_last)
