"""The data of a run: images checked, split, and written down in a manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.data.dataset import Dataset, Record, external_settings, open_dataset
from petlbench.data.loader import ImageStore
from petlbench.data.manifest import manifest_of
from petlbench.data.record import SPLITS, Split, map_images, refusal
from petlbench.data.splits import SplitScheme, assign_splits
from petlbench.run.options import RunContext, RunOptions
from petlbench.run.resolve import ResolvedRun

__all__ = [
    "KEPT",
    "RunData",
    "check_apart",
    "load_external_data",
    "load_run_data",
    "open_test_set",
    "opened_dataset",
    "read_test_set",
    "shared_images",
]


KEPT = "datasets"
"""The folder, in that of the results, of data that came from Python."""


@dataclass(frozen=True)
class RunData:
    """A dataset with its split.

    Args:
        dataset: The dataset without the images that were skipped.
        indices: Positions in the dataset by split.
        manifest: One row an image: image_id, path, label, split, group, sha256.
        skipped: What was wrong with each image that was left out.
        images: The images, and what was kept of them when they were read for the first time.
    """

    dataset: Dataset
    indices: Mapping[Split, list[int]]
    manifest: pd.DataFrame
    skipped: tuple[str, ...]
    images: ImageStore

    def records(self, split: Split) -> list[Record]:
        """The images of one side, in the order of its indices."""
        return [self.dataset.records[index] for index in self.indices[split]]


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

    Raises:
        InputError: When the split is wrong, or an image cannot be read and is not to be skipped.
    """
    scheme = SplitScheme.parse(run.config.split)

    def split(dataset: Dataset) -> list[Split]:
        for name, members in dataset.by_class().items():
            if not members:
                message = f"class '{name}' of {dataset.name} has no image left"
                raise InputError(message, hint="mend its images, or take the class out", kind="class_too_small")
        seed, strata = run.config.split_seed, dataset.task.strata
        return assign_splits(dataset.records, scheme, seed, classes=dataset.classes, strata=strata)

    return _read_all(images, split, run.config.skip_corrupt, context)


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
    return _read_all(ImageStore(dataset), lambda rest: ["test"] * len(rest.records), skip_corrupt, context)


def _read_all(
    images: ImageStore, split: Callable[[Dataset], list[Split]], skip_corrupt: bool, context: RunContext
) -> RunData:
    """Split a dataset and look at every image; once more split what is left where some cannot be read."""
    dataset = images.dataset
    splits = split(dataset)
    side = {record.image_id: name for record, name in zip(dataset.records, splits, strict=True)}
    dataset.measure_greys(context.options.workers, context.progress)
    digests, errors = map_images(
        dataset.records,
        lambda record: images.read(record, side[record.image_id]),
        context.options.workers,
        context.progress,
    )
    if errors and not skip_corrupt:
        raise refusal(errors, "mend or remove it, or leave unreadable images out and count them with --skip-corrupt")
    if errors:
        dataset = dataset.keep([record for record in dataset.records if record.image_id not in errors])
        context.progress.say(f"{len(errors)} unreadable images are left out")
        splits = split(dataset)
    manifest = manifest_of(dataset, splits, [digests[record.image_id] for record in dataset.records])
    indices: dict[Split, list[int]] = {
        name: [index for index, side in enumerate(splits) if side == name] for name in SPLITS
    }
    skipped = tuple(error.message for error in errors.values())
    return RunData(dataset, indices, manifest, skipped, images.part(dataset))


def shared_images(external: RunData, trained: RunData) -> int:
    """Count the external images that are, byte for byte, among those of the run's own dataset."""
    return int(external.manifest["sha256"].isin(trained.manifest["sha256"]).sum())
