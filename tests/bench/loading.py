"""Loading at 512 pixels against a plain torchvision loader in the same run: photographs as JPEG files, one view or two.

The plain one is what people write: ``ImageFolder`` and ``DataLoader`` with as many worker processes as petlbench has
threads, the same filter and the same augmentation; for two views a data set that opens the image once for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode

from petlbench.core.catalog import Catalog
from petlbench.core.progress import Progress
from petlbench.data.dataset import open_dataset
from petlbench.data.loader import ImageLoader
from petlbench.data.record import Split
from petlbench.data.views import Augmentation, Normalization, View
from petlbench.features.maintenance import CacheConfig
from petlbench.run.image_cache import ImageCache, fill_disk, open_images
from tests.bench.turns import in_turns

IMAGES, BATCH, ROUNDS = 96, 16, 5
SIDES = (768, 1024)
# Of 255, behind a standard deviation of one half; filters round a few pixels in a thousand the other way.
ONE_LEVEL = 1.01 * 2 / 255
HALF = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bench")
VIEWS: Mapping[int, Mapping[str, int]] = {1: {"fine": 512}, 2: {"fine": 512, "coarse": 224}}


def draw_photographs(root: Path) -> None:
    """Write soft structure with grain, as a camera gives it, in two classes: quality 90, 768 to 1,024 pixels."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        side = int(rng.integers(*SIDES, endpoint=True))
        coarse = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        soft = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
        grained = (soft + rng.integers(-8, 9, soft.shape)).clip(0, 255).astype(np.uint8)
        folder = root / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grained).save(folder / f"{number:03d}.jpg", quality=90)


def views(count: int, resampling: str, *, augmented: bool) -> dict[str, View]:
    augmentation = Augmentation() if augmented else None
    return {name: View(size, resampling, HALF, augmentation) for name, size in VIEWS[count].items()}


def plain_transform(view: View) -> Callable[[Image.Image], Tensor]:
    """What a view does, in torchvision's own words."""
    (side, resampling), crop = view.form, view.augmentation
    steps: list[Any] = [transforms.Resize((side, side), InterpolationMode(resampling))]
    if crop is not None:
        steps += [
            transforms.RandomResizedCrop(view.size, (crop.smallest_area, 1.0), (1.0, 1.0)),
            transforms.RandomHorizontalFlip(crop.mirror),
            transforms.ColorJitter(crop.jitter, crop.jitter, crop.jitter),
        ]
    steps += [transforms.ToTensor(), transforms.Normalize(HALF.mean, HALF.std)]
    composed: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
    return composed


class TwoFolders(Dataset[tuple[tuple[Tensor, ...], int]]):
    """The same images through several transforms, each of which opens the file for itself."""

    def __init__(self, folders: list[ImageFolder]) -> None:
        self.folders = folders

    def __len__(self) -> int:
        return len(self.folders[0])

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, ...], int]:
        opened = [folder[index] for folder in self.folders]
        return tuple(image for image, _ in opened), opened[0][1]


def plain_loader(root: Path, shown: Mapping[str, View], workers: int) -> DataLoader[Any]:
    folders = [ImageFolder(str(root), plain_transform(view)) for view in shown.values()]
    data: Dataset[Any] = folders[0] if len(folders) == 1 else TwoFolders(folders)
    return DataLoader(data, BATCH, num_workers=workers)


def our_loader(root: Path, shown: Mapping[str, View], workers: int, kept: ImageCache, cache: Path) -> ImageLoader:
    """A loader as a run has it in front of an epoch: in the first where nothing is kept, else behind it."""
    dataset = open_dataset(str(root), catalog=Catalog(), data_root=root, settings={})
    by_split: dict[Split, Mapping[str, View]] = {"train": shown}
    images = open_images(kept, dataset, by_split, CacheConfig(cache))
    if kept != "none":
        for record in dataset.records:
            images.read(record, "train")
        fill_disk(images, {"train": range(len(dataset.records))}, CacheConfig(cache), workers, Progress())
    return ImageLoader(images, range(len(dataset.records)), shown, BATCH, workers)


def run_through(loader: Iterable[object]) -> None:
    for _ in loader:
        pass


@dataclass(frozen=True)
class Case:
    """What is loaded, and how."""

    views: int
    resampling: str = "bilinear"
    augmented: bool = False
    workers: int = 2
    kept: ImageCache = "none"

    def described(self) -> list[str]:
        epoch = "first epoch" if self.kept == "none" else f"later epochs, {self.kept}"
        augmented = "augmented" if self.augmented else "as it is"
        return [str(self.views), self.resampling, augmented, str(self.workers), epoch]


# Bilinear is what torchvision resizes by when nothing is said, bicubic what most vision transformers ask for.
CASES = (
    *(Case(views, workers=workers) for views in VIEWS for workers in (1, 2)),
    *(Case(views, augmented=True) for views in VIEWS),
    *(Case(views, "bicubic") for views in VIEWS),
    *(Case(2, augmented=augmented, kept=kept) for kept in ("ram", "disk") for augmented in (False, True)),
)


def epoch(case: Case, root: Path, cache: Path, rounds: int = ROUNDS) -> tuple[float, float, float]:
    """An epoch with petlbench over one with the plain loader, and the seconds of both."""
    shown = views(case.views, case.resampling, augmented=case.augmented)
    ours = our_loader(root, shown, case.workers, case.kept, cache)
    plain = plain_loader(root, shown, case.workers)
    return in_turns(lambda: run_through(ours.in_order()), lambda: run_through(plain), rounds)


def check_same_images(root: Path, cache: Path) -> None:
    """See that both make the same of an image before their speeds are compared."""
    shown = views(2, "bicubic", augmented=False)
    mine = next(our_loader(root, shown, 1, "none", cache).in_order())
    theirs, _ = next(iter(plain_loader(root, shown, 0)))
    for view, expected in zip(mine.views.values(), theirs, strict=True):
        torch.testing.assert_close(view, expected, rtol=0.0, atol=ONE_LEVEL)


def report(console: Console) -> None:
    """Print everything; takes some minutes."""
    torch.set_num_threads(1)
    columns = ("views", "filter", "pixels", "workers", "when", "times as fast", "petlbench", "torchvision")
    table = Table(*columns, title=f"loading at 512 pixels, {IMAGES} JPEG files")
    with TemporaryDirectory() as folder:
        root, cache = Path(folder) / "photographs", Path(folder) / "cache"
        draw_photographs(root)
        check_same_images(root, cache)
        for case in CASES:
            ratio, ours, plain = epoch(case, root, cache)
            rates = [f"{IMAGES / seconds:.1f} images/s" for seconds in (ours, plain)]
            table.add_row(*case.described(), f"{1 / ratio:.2f}", *rates)
    console.print(table)
