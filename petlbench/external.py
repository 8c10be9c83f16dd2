"""An external test set: another dataset of the same classes, on which a run is tested beside its own test split."""

from __future__ import annotations

from pathlib import Path

from petlbench.catalog import Catalog
from petlbench.config import RunConfig
from petlbench.data.task import TaskData, load_test_data
from petlbench.progress import Progress

__all__ = ["load_external_data", "shared_images"]


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
