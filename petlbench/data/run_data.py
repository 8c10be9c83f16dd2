"""The data of a run: images checked, split, and written down in a manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset, Record, open_dataset
from petlbench.data.image_store import ImageStore
from petlbench.data.manifest import manifest_of
from petlbench.data.record import SPLITS, Split
from petlbench.data.splits import SplitScheme, assign_splits

__all__ = ["TaskData", "load_external_data", "load_task_data", "load_test_data", "shared_images"]


@dataclass(frozen=True)
class TaskData:
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


def load_task_data(
    config: RunConfig,
    catalog: Catalog,
    data_root: Path,
    workers: int,
    progress: Progress,
    *,
    images_of: Callable[[Dataset], ImageStore] = ImageStore,
) -> TaskData:
    """Open a run's dataset, split it, and read every image once: to be sure of it, to hash it, and to keep it.

    Args:
        config: The run.
        catalog: The catalogues.
        data_root: The folder below which the images of cards lie.
        workers: Threads that decode.
        progress: Told what goes on.
        images_of: Says what is kept of a dataset's images; nothing by default.

    Raises:
        InputError: When the dataset or its split is wrong, or an image cannot be read and is not to be skipped.
    """
    dataset = open_dataset(config.dataset, catalog=catalog, data_root=data_root, settings=config.dataset_settings)
    scheme = SplitScheme.parse(config.split)

    def split(left: Dataset) -> list[Split]:
        _check_classes(left)
        return assign_splits(left.records, scheme, config.split_seed, classes=left.classes)

    return _read_all(images_of(dataset), split, config.skip_corrupt, workers, progress)


def load_test_data(
    config: RunConfig, catalog: Catalog, data_root: Path, workers: int, progress: Progress, *, classes: Sequence[str]
) -> TaskData:
    """Open a run's external test set, all of whose images are its test split, and read every image once.

    Args:
        config: The run.
        catalog: The catalogues.
        data_root: The folder below which the images of cards lie.
        workers: Threads that decode.
        progress: Told what goes on.
        classes: The classes that the run learns, in label order.

    Raises:
        InputError: When the dataset or its classes are wrong, or an image cannot be read and is not to be skipped.
    """
    dataset = open_dataset(config.test_on, catalog=catalog, data_root=data_root, settings={}).labelled_as(classes)
    images = ImageStore(dataset)
    return _read_all(images, lambda left: ["test"] * len(left.records), config.skip_corrupt, workers, progress)


def _read_all(
    images: ImageStore,
    split: Callable[[Dataset], list[Split]],
    skip_corrupt: bool,
    workers: int,
    progress: Progress,
) -> TaskData:
    """Split a dataset and look at every image; once more split what is left where some cannot be read."""
    dataset = images.dataset
    splits = split(dataset)
    digests, errors = _read(images, splits, workers, progress)
    if errors and not skip_corrupt:
        raise _refusal(errors)
    if errors:
        dataset = dataset.keep([record for record in dataset.records if record.image_id not in errors])
        progress.say(f"{len(errors)} unreadable images are left out")
        splits = split(dataset)
    manifest = manifest_of(dataset, splits, [digests[record.image_id] for record in dataset.records])
    indices: dict[Split, list[int]] = {
        name: [index for index, side in enumerate(splits) if side == name] for name in SPLITS
    }
    skipped = tuple(error.message for error in errors.values())
    return TaskData(dataset, indices, manifest, skipped, images.part(dataset))


def _check_classes(dataset: Dataset) -> None:
    present = {record.label for record in dataset.records}
    for label, name in enumerate(dataset.classes):
        if label not in present:
            raise InputError(
                f"class '{name}' of {dataset.name} has no image left",
                hint="mend its images, or take the class out",
                kind="class_too_small",
            )


def _read(
    images: ImageStore, splits: Sequence[Split], workers: int, progress: Progress
) -> tuple[dict[str, str], dict[str, InputError]]:
    """Look at every image; return the digests of those that can be read, and the errors of the others, by image id."""
    records = images.dataset.records
    progress.phase("reading images", len(records))

    def look(record: Record, split: Split) -> str | InputError:
        try:
            return images.read(record, split)
        except InputError as error:
            return error
        finally:
            progress.advance()

    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            seen = dict(zip((record.image_id for record in records), pool.map(look, records, splits), strict=True))
        except BaseException:
            # Without this, Ctrl-C would wait until every remaining image is read.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    digests = {name: found for name, found in seen.items() if isinstance(found, str)}
    return digests, {name: found for name, found in seen.items() if isinstance(found, InputError)}


def _refusal(errors: Mapping[str, InputError]) -> InputError:
    first = next(iter(errors.values()))
    others = f" (and {len(errors) - 1} more like it)" if len(errors) > 1 else ""
    return InputError(
        first.message + others,
        hint="mend or remove it, or leave unreadable images out and count them with --skip-corrupt",
        kind=first.kind,
    )


def load_external_data(
    config: RunConfig, catalog: Catalog, data_root: Path, workers: int, progress: Progress, *, trained: TaskData
) -> TaskData | None:
    """Open a run's external test set; None where it has none.

    Args:
        config: The run.
        catalog: The catalogues.
        data_root: The folder below which the images of cards lie.
        workers: Threads that decode.
        progress: Told what goes on.
        trained: The dataset that the run learns from; its order of the classes is kept.

    Returns:
        All images of the external test set, as a test split.

    Raises:
        InputError: When the dataset or its classes are wrong, or an image cannot be read and is not to be skipped.
    """
    if not config.test_on:
        return None
    external = load_test_data(config, catalog, data_root, workers, progress, classes=trained.dataset.classes)
    if shared := shared_images(external, trained):
        progress.say(f"{shared} images of {external.dataset.name} are images of {trained.dataset.name}, byte for byte")
    return external


def shared_images(external: TaskData, trained: TaskData) -> int:
    """Count the external images that are, byte for byte, among those of the run's own dataset.

    Args:
        external: The external test set.
        trained: The dataset that the run learns from.
    """
    return int(external.manifest["sha256"].isin(trained.manifest["sha256"]).sum())
