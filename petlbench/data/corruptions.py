"""Images with the faults that scanners, cameras and files have, as the package ``medmnistc`` makes them.

F. Di Salvo, S. Doerrich and C. Ledig, "MedMNIST-C", arXiv:2406.17536: for each of MedMNIST's twelve two-dimensional
datasets those corruptions that its modality knows, each in five severities, made for images of 224 pixels.
"""

from __future__ import annotations

import importlib
import random
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.config import derive_seed
from petlbench.core.errors import InputError, RunError
from petlbench.data.dataset import Dataset
from petlbench.data.loader import ImageStore
from petlbench.data.record import Record
from petlbench.data.views import RGB, Form, Normalization, View

PACKAGE = "medmnistc"
SEVERITIES = 5
SIDE = 224
"""Side in pixels of the images that the corruptions were made for."""

_PACKAGES = ("medmnistc", "numpy", "opencv-python", "pillow", "scikit-image", "Wand")
# The package draws from the generators of the whole process.
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Corruptions:
    """The corruptions of one of MedMNIST's datasets.

    Args:
        dataset: Whose they are.
        members: What makes them, by name.
        colour: Whether images keep their colours; others become grey again.
        reference: Balanced errors of the package's AlexNet on that dataset: ``clean_score``, and ``raw_scores`` by
            corruption, means over the severities.
    """

    dataset: str
    members: Mapping[str, Any]
    colour: bool
    reference: Mapping[str, Any]

    def apply(self, image: RGB, name: str, severity: int, image_id: str) -> RGB:
        """Return an image (224, 224, 3) with a corruption of a severity from 1 to 5, the same in every process.

        Raises:
            RunError: When the package fails.
        """
        member, seed = self.members[name], derive_seed(0, "corruption", name, severity, image_id) % 2**32
        with _LOCK, _drawn_from(seed):
            member.rng = np.random.default_rng(seed)  # what some of them draw from
            try:
                made = np.asarray(member.apply(Image.fromarray(image), severity - 1))
            except Exception as error:
                message = f"{PACKAGE} cannot make {name} of {image_id}: {type(error).__name__}: {error}"
                raise RunError(message, kind="corruption_failed") from error
        picture = Image.fromarray(made.astype(np.uint8))
        return np.asarray((picture if self.colour else picture.convert("L")).convert("RGB"))

    def versions(self) -> dict[str, str]:
        """Versions of the packages that the pixels depend on."""
        return {name: version(name) for name in _PACKAGES}


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Seed the generators of the process, and put them back."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


class CorruptedImages(ImageStore):
    """The images of a store with one corruption: made at 224 pixels, before the views resize them.

    Args:
        images: The images.
        corruptions: Where the corruption is from.
        name: The corruption; empty for images that are resized to 224 pixels alone, with which they are compared.
        severity: From 1 to 5.
    """

    _plain = View(SIDE, "bicubic", Normalization((0.5,) * 3, (0.5,) * 3, "none"))

    def __init__(self, images: ImageStore, corruptions: Corruptions, name: str = "", severity: int = 0) -> None:
        super().__init__(images.dataset)
        self._images, self._corruptions, self._name, self._severity = images, corruptions, name, severity

    def stored(self, record: Record, views: Iterable[View]) -> Mapping[Form, RGB]:
        """Return what views store of a corrupted image, by form, each (side, side, 3)."""
        pixels = self._images.stored(record, [self._plain])[self._plain.form]
        if self._name:
            pixels = self._corruptions.apply(pixels, self._name, self._severity, record.image_id)
        image = Image.fromarray(pixels)
        return {view.form: view.store(image) for view in views}


def load_corruptions(text: str, dataset: Dataset, catalog: Catalog) -> Corruptions:
    """Return the corruptions that ``medmnistc`` has for a dataset, or ``medmnistc:NAME`` for one of MedMNIST's.

    Where the package has none of the dataset's name, they are those of the one dataset that has its modality.

    Raises:
        InputError: When there are none, the choice is not one, or the package or ImageMagick is missing.
    """
    package, _, name = text.partition(":")
    if package != PACKAGE:
        message = f"--corruptions {text}: there are none of that name"
        raise InputError(message, hint=f"give {PACKAGE}, or {PACKAGE}:NAME", kind="unknown_corruptions")
    registry = _import("corruptions.registry")
    names, entries = registry.CORRUPTIONS_DS, catalog.entries("dataset")
    alike = [each for each in names if each in entries and entries[each].card["modality"] == dataset.card.modality]
    choices = [name or dataset.name] if (name or dataset.name) in names else [] if name else alike
    if len(choices) != 1:
        of_several = f"of the modality '{dataset.card.modality}' are {', '.join(choices)}"
        raise InputError(
            f"--corruptions {text}: {PACKAGE} has none of {name or dataset.name}" + f"; {of_several}" * bool(choices),
            hint=f"choose with {PACKAGE}:NAME, one of {', '.join(names)}",
            kind="unknown_corruptions",
        )
    (chosen,) = choices
    reference = _import("utils.baselines").BASELINES.get(chosen, {}) if chosen == dataset.name else {}
    return Corruptions(chosen, names[chosen], registry.DATASET_RGB[chosen], reference)


def _import(name: str) -> ModuleType:
    try:
        # It reads bytes by what NumPy 2.3 no longer has, and asks for the module by this name.
        filters = importlib.import_module(f"{PACKAGE}.corruptions.filter")
        filters.np = _numpy_with_fromstring()  # type: ignore[attr-defined]
        return importlib.import_module(f"{PACKAGE}.{name}")
    except ImportError as error:
        raise InputError(
            f"corruptions need the package {PACKAGE} and the library ImageMagick: {error}".partition("\n")[0],
            hint="pip install 'petlbench[corruptions]', and ImageMagick: on Debian apt install libmagickwand-6.q16-6",
            kind="missing_package",
        ) from error


def _numpy_with_fromstring() -> ModuleType:
    module = ModuleType("numpy")
    vars(module).update(vars(np), fromstring=np.frombuffer)
    return module
