"""The data of a run: images checked, split, and written down in a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.data.dataset import Dataset, external_settings, open_dataset
from petlbench.data.draws import Draw
from petlbench.data.loader import ImageStore
from petlbench.data.manifest import Manifest, manifest_of, with_draw
from petlbench.data.record import SPLITS, Record, Split, map_images, refusal
from petlbench.data.splits import SplitScheme, assign_splits
from petlbench.run.options import RunContext, RunOptions
from petlbench.run.resolve import ResolvedRun

KEPT = "datasets"
"""The folder, in that of the results, of data that came from Python."""

# What of a config decides which image is on which side, beside the size of a batch that has to be filled.
_DRAWN_BY = ("shots", "train_fraction", "draw", "shots_val")
_SPLIT_BY = ("split", "split_seed", *_DRAWN_BY, "train_on", "skip_corrupt")


@dataclass(frozen=True)
class RunData:
    """A dataset with its split.

    Args:
        dataset: The dataset without the images that were skipped, and without those that were not drawn.
        indices: Positions in the dataset by split.
        manifest: One row an image: image_id, path, label, split, group, sha256.
        skipped: What was wrong with each image that was left out.
        images: The images, and what was kept of them when they were read for the first time.
        drawn: The draw of few labels: how many, which one, whether the release's own; empty where all are used.
    """

    dataset: Dataset
    indices: Mapping[Split, list[int]]
    manifest: Manifest
    skipped: tuple[str, ...]
    images: ImageStore
    drawn: Mapping[str, Any] = field(default_factory=dict)

    def records(self, split: Split) -> list[Record]:
        """The images of one side, in the order of its indices."""
        records = self.dataset.records
        return [records[index] for index in self.indices[split]]

    def labels(self, split: Split) -> NDArray[Any]:
        """The labels of one side, in the order of its indices, as the loss takes them."""
        return self.dataset.task.labels.to_array([record.label for record in self.records(split)])

    def balanced_weights(self) -> NDArray[Any] | None:
        """The weights (C,) that balance the training images; None where the task has none."""
        balanced = self.dataset.task.balanced
        return None if balanced is None else balanced(self.labels("train"), len(self.dataset.classes))


def require_classes(dataset: Dataset, method: str) -> None:
    """Refuse a dataset whose images have no one class each, for a method that chooses by it what it learns.

    Raises:
        InputError: When they have none.
    """
    if not dataset.task.labels.exclusive:
        raise InputError(
            f"{method} chooses what it learns by the images' classes, and the labels of {dataset.name} are no classes: "
            f"its task is {dataset.task.title}",
            hint="choose another method",
            kind="unsupported",
        )


def check_apart(config: RunConfig, options: RunOptions) -> None:
    """Check that results go neither into a folder of images nor around it, where readers take folders for classes.

    Raises:
        InputError: When they would (kind ``output_in_dataset``); nothing is written then.
    """
    output = options.output.resolve()
    for dataset in filter(None, (config.dataset, config.test_on)):
        folder = (options.data_root / dataset).resolve()  # a path of a config is absolute
        is_kept = folder.parent == output / KEPT  # what was made of Python's own data
        if folder.is_dir() and not is_kept and (output.is_relative_to(folder) or folder.is_relative_to(output)):
            raise InputError(
                f"the output folder {options.output} is, holds or lies in the folder of the dataset, {folder}",
                hint="give another one with --output, apart from the images",
                kind="output_in_dataset",
            )


def opened_dataset(run: ResolvedRun, context: RunContext) -> Dataset:
    """The dataset of a run.

    Raises:
        InputError: When its images are not there, or no run can train on them; the error says why.
    """
    if run.dataset is not None and run.dataset.dataset is not None:
        return run.dataset.dataset
    config, root = run.config, context.options.data_root
    return open_dataset(config.dataset, catalog=context.catalog, data_root=root, settings=config.dataset_settings)


def load_run_data(run: ResolvedRun, context: RunContext, images: ImageStore) -> RunData:
    """Split a run's dataset, and read every image once: to be sure of it, to hash it, and to keep it.

    All are read of which some are drawn: what is drawn must not depend on whether other images can be read.

    Raises:
        InputError: When the split is wrong, a class has too few images to draw from, the training images fill no batch
            and have to, or an image cannot be read and is not to be skipped.
    """
    config = run.config
    fills = config.training.batch_size if config.training.drop_last else 0
    choice = json.dumps([*(getattr(config, name) for name in _SPLIT_BY), fills])
    data = context.parts.split(images.dataset, choice, lambda: _split(config, context, images))
    return replace(_told(data, context), images=images.part(data.dataset))


def _split(config: RunConfig, context: RunContext, images: ImageStore) -> RunData:
    """What runs have in common that split a dataset alike."""
    scheme = SplitScheme.parse(config.split)
    draw = Draw(config.shots, config.train_fraction, config.draw, config.split_seed, config.shots_val)

    def is_official(dataset: Dataset) -> bool:
        return scheme.kind == "official" and draw.is_official(dataset.records)

    def split(dataset: Dataset) -> tuple[list[Split], list[Split | None]]:
        for name, members in dataset.by_class().items():
            if not members:
                message = f"class '{name}' of {dataset.name} has no image left"
                raise InputError(message, hint="mend its images, or take the class out", kind="class_too_small")
        records, names, strata = dataset.records, dataset.classes, dataset.task.strata
        if draw.shots and len(names) < 2:
            message = f"--shots {draw.shots}: {dataset.name} has no classes of which so many images could be drawn"
            raise InputError(message, hint="draw a share with --train-fraction", kind="bad_setting")
        splits = assign_splits(records, scheme, config.split_seed, classes=names, strata=strata)
        sides = draw.sides(records, splits, classes=names, strata=strata, official=is_official(dataset))
        _require_batch(config, sides, dataset.name)
        return splits, sides

    data = _read_all(images, split, config.skip_corrupt, context)
    if config.train_on == "train+val":
        data = _with_validation(data)
    if draw.is_whole:
        return data
    drawn = {name: getattr(config, name) for name in _DRAWN_BY}
    return replace(data, drawn={**drawn, "official": is_official(data.dataset)})


def _require_batch(config: RunConfig, sides: Sequence[Split | None], dataset: str) -> None:
    """Refuse images to train on that fill no batch, where one that is not full is to be left out."""
    trained = ("train",) if config.train_on == "train" else ("train", "val")
    count, size = sum(side in trained for side in sides), config.training.batch_size
    if config.training.drop_last and count < size:
        raise InputError(
            f"--drop-last leaves nothing of {dataset}: {count} training images fill no batch of {size}",
            hint=f"give --batch-size {count} or less, or leave --drop-last out",
            kind="dataset_too_small",
        )


def _with_validation(data: RunData) -> RunData:
    """The data with the validation images among those that are trained on; nothing is left to validate on."""
    both = sorted([*data.indices["train"], *data.indices["val"]])
    return replace(data, indices={**data.indices, "train": both, "val": []})


def load_external_data(run: ResolvedRun, context: RunContext, trained: RunData) -> RunData | None:
    """Open a run's external test set, all of whose images are its test split, and read every image once.

    Returns:
        All images of the external test set, as a test split; None where the run has none.

    Raises:
        InputError: When the dataset or its classes are wrong, or an image cannot be read and is not to be skipped.
    """
    if not run.config.test_on:
        return None
    with external_settings(run.config.dataset_settings) as settings:
        dataset = open_test_set(run.config.test_on, settings, trained.dataset.classes, context)
    external = read_test_set(dataset, run.config.skip_corrupt, context)
    if shared := shared_images(external, trained):
        context.progress.say(
            f"{shared} images of {external.dataset.name} are images of {trained.dataset.name}, byte for byte"
        )
    return external


def open_test_set(reference: str, settings: Mapping[str, Any], classes: Sequence[str], context: RunContext) -> Dataset:
    """Open a dataset as a test set of classes that are learned; it may lack some, which is said.

    Raises:
        InputError: When the dataset or its classes are wrong.
    """
    root = context.options.data_root
    dataset = open_dataset(reference, catalog=context.catalog, data_root=root, settings=settings)
    labelled = dataset.labelled_as(classes)
    if absent := [name for name in classes if name not in dataset.classes]:
        context.progress.say(f"{dataset.name} has no image of {', '.join(absent)}: its scores are of the other classes")
    return labelled


def read_test_set(dataset: Dataset, skip_corrupt: bool, context: RunContext) -> RunData:
    """Read every image of a dataset once, as a test split.

    Raises:
        InputError: When an image cannot be read and is not to be skipped.
    """

    def all_tested(rest: Dataset) -> tuple[list[Split], list[Split]]:
        sides: list[Split] = ["test"] * len(rest.records)
        return sides, sides

    return _told(_read_all(ImageStore(dataset), all_tested, skip_corrupt, context), context)


def _read_all(
    images: ImageStore,
    split: Callable[[Dataset], tuple[Sequence[Split], Sequence[Split | None]]],
    skip_corrupt: bool,
    context: RunContext,
) -> RunData:
    """Split a dataset and look at every image; once more split what is left where some cannot be read.

    A split is the sides of all images, and the sides of those that are drawn, with None for the others.
    """
    dataset = images.dataset
    splits, drawn = split(dataset)
    side = {record.image_id: name for record, name in zip(dataset.records, drawn, strict=True)}
    dataset.measure_greys(context.options.workers, context.progress)
    digests, errors = map_images(
        dataset.records,
        lambda record: images.read(record, side[record.image_id]),
        context.options.workers,
        context.progress,
    )
    if errors and not skip_corrupt:
        raise refusal(errors, "or leave unreadable images out and count them with --skip-corrupt")
    if errors:
        dataset = dataset.keep([record for record in dataset.records if record.image_id not in errors])
        splits, drawn = split(dataset)
    frame = manifest_of(dataset, splits, [digests[record.image_id] for record in dataset.records])
    if list(drawn) != list(splits):
        frame = with_draw(frame, dataset, drawn)
        dataset = dataset.keep([record for record, name in zip(dataset.records, drawn, strict=True) if name])
    sides = [name for name in drawn if name]
    indices: dict[Split, list[int]] = {
        name: [index for index, side in enumerate(sides) if side == name] for name in SPLITS
    }
    skipped = tuple(error.message for error in errors.values())
    return RunData(dataset, indices, Manifest(frame), skipped, images.part(dataset))


def _told(data: RunData, context: RunContext) -> RunData:
    """The data; of images that are left out the user learns."""
    if data.skipped:
        context.progress.say(f"{len(data.skipped)} unreadable images are left out")
    return data


def shared_images(external: RunData, trained: RunData) -> int:
    """Count the external images that are, byte for byte, among those of the run's own dataset."""
    return int(external.manifest.frame["sha256"].isin(trained.manifest.frame["sha256"]).sum())
