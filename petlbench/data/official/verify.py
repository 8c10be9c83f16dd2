"""Comparing a prepared dataset with its table: is every image there, readable, and the one that was prepared?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.core.user_files import inside
from petlbench.core.user_files import read_bytes as read_file
from petlbench.data.card import DatasetCard
from petlbench.data.dataset import find_card
from petlbench.data.images.decode import decode_image, read_bytes
from petlbench.data.images.files import ImageFacts
from petlbench.data.official.fetch import require_official
from petlbench.data.readers.base import Source
from petlbench.data.readers.prepared import PREPARED_FILE, PreparedReader, PreparedSettings
from petlbench.data.record import Record, map_images
from petlbench.data.tasks.base import task_of

FaultKind = Literal["count", "missing", "size", "checksum", "unreadable", "manifest"]


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it was: what is wrong, with which image or manifest, and the same in words."""

    kind: FaultKind
    file: str
    message: str


@dataclass(frozen=True)
class Verified:
    """What came out.

    Args:
        images: How many images, or files, were looked at.
        bytes: Size of all of them by the table.
        faults: What is wrong; images in the order of the table, then manifests.
        what: ``images``, or ``files`` where each holds many images.
    """

    images: int
    bytes: int
    faults: Sequence[Fault]
    what: str = "images"


def _verify_prepared(reader: PreparedReader, folder: Path, workers: int, progress: Progress) -> Verified:
    """Read every image of a prepared dataset, and every manifest in its folder, and return what differs."""

    def check(record: Record) -> Fault | None:
        return _image_fault(reader.file(record), reader.facts[record.image_id])

    outcomes, _ = map_images(reader.records, check, workers, progress, phase="verifying images")
    faults = [fault for fault in outcomes.values() if fault is not None]
    count, expected = len(reader.records), reader.prepared.images
    if count != expected:
        faults.insert(0, Fault("count", "images.csv", f"the table has {count} images, not {expected}"))
    faults += _manifest_faults(reader, folder)
    return Verified(count, sum(facts.bytes for facts in reader.facts.values()), faults)


def verify_dataset(reference: str, catalog: Catalog, data_root: Path, workers: int, progress: Progress) -> Verified:
    """Compare a dataset, named or by its card's path, with what was written down when it was prepared.

    Raises:
        InputError: When the dataset is not prepared, or nothing is known to compare it with.
    """
    name, card = find_card(reference, catalog=catalog)
    folder = data_root / name
    if card is not None and card.layout is not None:
        labels = task_of(card, catalog).labels
        reader = PreparedReader(Source(name, folder, PreparedSettings(), card, labels))
        return _verify_prepared(reader, folder, workers, progress)
    if card is not None and any(file.checksum for file in card.files):
        return _verify_files(name, card, folder, progress)
    raise InputError(
        f"nothing was written down of the files of '{name}' that they could be compared with",
        hint=f"petlbench data audit {reference} looks at the files themselves",
        kind="nothing_to_verify",
    )


def _verify_files(name: str, card: DatasetCard, folder: Path, progress: Progress) -> Verified:
    """Compare official files that are read as they are with the checksums that the card knows."""
    files = [file for file in card.files if (folder / file.name).is_file()]
    if not files:
        raise InputError(
            f"no official file of '{name}' lies in {folder}", hint=f"petlbench data prepare {name}", kind="data_missing"
        )
    faults: list[Fault] = []
    for file in files:
        try:
            require_official(folder / file.name, file, progress)
        except InputError as error:
            faults.append(Fault("checksum", str(folder / file.name), error.message))
    return Verified(len(files), sum((folder / file.name).stat().st_size for file in files), faults, "files")


def _image_fault(file: Path, expected: ImageFacts) -> Fault | None:
    try:
        content = read_bytes(file)
    except InputError as error:
        return Fault("missing", str(file), error.message)
    if len(content) != expected.bytes:
        return Fault("size", str(file), f"the image {file} has {len(content)} bytes, not {expected.bytes}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected.sha256:
        return Fault("checksum", str(file), f"the image {file} has the checksum {digest}, not {expected.sha256}")
    try:
        decode_image(content, str(file))
    except InputError as error:
        return Fault("unreadable", str(file), error.message)
    return None


def _manifest_faults(reader: PreparedReader, folder: Path) -> Iterator[Fault]:
    for scheme, split in reader.prepared.splits.items():
        file = inside(folder, split.file, what=f"splits.{scheme}.file of {folder / PREPARED_FILE}")
        digest = hashlib.sha256(read_file(file)).hexdigest() if file.is_file() else "none"
        if digest != split.sha256:
            message = f"the manifest {file} of the split {scheme} has the checksum {digest}, not {split.sha256}"
            yield Fault("manifest", str(file), message)
