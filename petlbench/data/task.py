"""The data of a run: images checked, split, and written down in a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from petlbench.catalog import Catalog
from petlbench.config import RunConfig
from petlbench.data.dataset import Dataset, Record, open_dataset
from petlbench.data.manifest import build_manifest
from petlbench.data.record import SPLITS
from petlbench.data.splits import SplitScheme, assign_splits
from petlbench.errors import InputError
from petlbench.progress import Progress

__all__ = ["TaskData", "load_task_data"]


@dataclass(frozen=True)
class TaskData:
    """A dataset with its split.

    Args:
        dataset: The dataset without the images that were skipped.
        indices: Positions in the dataset by split.
        manifest: One row an image: image_id, path, label, split, group, sha256.
        skipped: What was wrong with each image that was left out.
    """

    dataset: Dataset
    indices: Mapping[str, list[int]]
    manifest: pd.DataFrame
    skipped: tuple[str, ...]


def load_task_data(config: RunConfig, catalog: Catalog, data_root: Path, workers: int, progress: Progress) -> TaskData:
    """Open a run's dataset, decode every image once to be sure of it, and split it.

    Args:
        config: The run.
        catalog: The catalogues.
        data_root: The folder below which the images of cards lie.
        workers: Threads that decode.
        progress: Told what goes on.

    Raises:
        InputError: When the dataset or its split is wrong, or an image cannot be read and is not to be skipped.
    """
    dataset = open_dataset(config.dataset, catalog=catalog, data_root=data_root, settings=config.dataset_settings)
    errors = _unreadable(dataset, workers, progress)
    if errors and not config.skip_corrupt:
        raise _refusal(errors)
    if errors:
        dataset = dataset.keep([record for record in dataset.records if record.image_id not in errors])
        progress.say(f"{len(errors)} unreadable images are left out")
    _check_classes(dataset)
    splits = assign_splits(dataset.records, SplitScheme.parse(config.split), config.split_seed, classes=dataset.classes)
    progress.phase("checksums", len(splits))
    manifest = build_manifest(dataset, splits, on_progress=lambda _done, _total: progress.advance())
    indices: dict[str, list[int]] = {
        name: [index for index, split in enumerate(splits) if split == name] for name in SPLITS
    }
    return TaskData(dataset, indices, manifest, tuple(error.message for error in errors.values()))


def _check_classes(dataset: Dataset) -> None:
    present = {record.label for record in dataset.records}
    for label, name in enumerate(dataset.classes):
        if label not in present:
            raise InputError(
                f"class '{name}' of {dataset.name} has no image left",
                hint="mend its images, or take the class out",
                kind="class_too_small",
            )


def _unreadable(dataset: Dataset, workers: int, progress: Progress) -> dict[str, InputError]:
    """Decode every image; return the errors by image id."""
    progress.phase("checking images", len(dataset.records))

    def check(record: Record) -> InputError | None:
        try:
            dataset.open(record)
        except InputError as error:
            return error
        finally:
            progress.advance()
        return None

    with ThreadPoolExecutor(max(1, workers)) as pool:
        checked = zip(dataset.records, pool.map(check, dataset.records), strict=True)
        return {record.image_id: error for record, error in checked if error is not None}


def _refusal(errors: Mapping[str, InputError]) -> InputError:
    first = next(iter(errors.values()))
    others = f" (and {len(errors) - 1} more like it)" if len(errors) > 1 else ""
    return InputError(
        first.message + others,
        hint="mend or remove it, or leave unreadable images out and count them with --skip-corrupt",
        kind=first.kind,
    )
