"""Image files: which there are below a folder, in the same order on every system, and what each says of its image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from petlbench.core.errors import InputError
from petlbench.core.user_files import open_file
from petlbench.data.images.colours import has_deep_colours
from petlbench.data.images.decode import NOT_DATA, broken_named, decode_image, open_image, read_bytes
from petlbench.data.images.dicom import HEAD_BYTES, is_dicom, read_dataset, require_pydicom

_DEPTHS = {
    "1": "1 bit",
    "L": "grey, 8 bits",
    "LA": "grey and alpha, 8 bits",
    "P": "palette, 8 bits",
    "RGB": "colour, 8 bits",
    "RGBA": "colour and alpha, 8 bits",
    "CMYK": "CMYK, 8 bits",
    "I": "grey, 32 bits",
    "F": "grey, floating point",
}


@dataclass(frozen=True)
class Header:
    """What the head of an image file says; no pixel is decoded for it.

    Args:
        width: Pixels, as stored.
        height: Pixels, as stored.
        format: By the content, not by the name: ``JPEG``, ``PNG``, ``DICOM``, ….
        depth: Channels and bits of a pixel, in words.
        bytes: Size of the file.
    """

    width: int
    height: int
    format: str
    depth: str
    bytes: int


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image that was read whole.

    Args:
        sha256: Checksum of the file, in hexadecimal.
        bytes: Size of the file.
        width: Pixels, as the image stands upright.
        height: Pixels.
        format: What the content is, such as ``PNG``, whatever the file's name says.
    """

    sha256: str
    bytes: int
    width: int
    height: int
    format: str


def read_facts(file: Path) -> ImageFacts:
    """Return what an image file tells, read and decoded once.

    Raises:
        InputError: When it is absent or cannot be decoded.
    """
    content = read_bytes(file)
    image = decode_image(content, str(file))
    kind = read_header(file).format
    return ImageFacts(hashlib.sha256(content).hexdigest(), len(content), image.width, image.height, kind)


def read_header(file: Path) -> Header:
    """Return what a file's head says.

    Raises:
        InputError: When the file is absent, no regular one, or its head cannot be read.
    """
    with open_file(file, what="image") as stream, broken_named(str(file)):
        size = os.fstat(stream.fileno()).st_size
        has_tags = is_dicom(stream.read(HEAD_BYTES))
        stream.seek(0)
        return _dicom_header(stream, file, size) if has_tags else _header(stream, size)


def _header(stream: BinaryIO, size: int) -> Header:
    with open_image(stream) as opened:
        depth = "grey, 16 bits" if opened.mode.startswith("I;16") else _DEPTHS.get(opened.mode, opened.mode)
        depth = depth.replace("8", "16") if has_deep_colours(opened) else depth
        return Header(opened.width, opened.height, opened.format or "unknown", depth, size)


def _dicom_header(stream: BinaryIO, file: Path, size: int) -> Header:
    require_pydicom(str(file))
    tags = ["Rows", "Columns", "SamplesPerPixel", "BitsStored"]
    header = read_dataset(stream, stop_before_pixels=True, specific_tags=tags)
    channels = "colour" if header.get("SamplesPerPixel", 1) > 1 else "grey"
    depth = f"{channels}, {header.get('BitsStored', '?')} bits"
    if not {"Rows", "Columns"} <= set(header.dir()):
        raise ValueError("it does not say how many rows and columns it has")
    return Header(int(header.Columns), int(header.Rows), "DICOM", depth, size)


def sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, by name, without hidden entries and what systems leave beside data.

    Raises:
        InputError: When the folder cannot be read, or a name in it is not valid UTF-8.
    """
    try:
        with os.scandir(folder) as scan:
            entries = [entry for entry in scan if not entry.name.startswith(".") and entry.name not in NOT_DATA]
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}", kind="data_missing") from error
    for entry in entries:
        try:
            entry.name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"the file name {entry.name!a} in {folder} is not valid UTF-8",
                hint="rename the file",
                kind="bad_file_name",
            ) from error
    return sorted(entries, key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def files_below(folder: Path, prefix: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the path of every file below a folder, in POSIX form.

    Links to folders are followed, except to one that we are in.

    Args:
        folder: The folder.
        prefix: What every path begins with, such as ``folder/``.
        above: The real paths of the folders that we are in.

    Raises:
        InputError: As for `sorted_entries`.
    """
    above = (*above, os.path.realpath(folder))
    for entry in sorted_entries(folder):
        if not is_folder(entry):
            yield prefix + entry.name
        elif os.path.realpath(entry.path) not in above:
            yield from files_below(Path(entry.path), f"{prefix}{entry.name}/", above)
