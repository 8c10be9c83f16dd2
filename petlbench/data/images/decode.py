"""From the bytes of an image file to an upright image, or to an error that names the file.

A decoded image is RGB of 8 bits a channel or, where the file's greys are deeper, of mode F with greys from 0 to 255.
Deep greys stay so until they are resized: `to_rgb` then rounds them. Deep colours are rounded at once.
"""

from __future__ import annotations

import io
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from petlbench.core import user_files
from petlbench.core.errors import InputError
from petlbench.core.units import readable_size
from petlbench.data.images.colours import has_deep_colours, numbers_of, refuse_deep_planes
from petlbench.data.images.dicom import DICOM_SUFFIXES, HEAD_BYTES, decode_dicom, is_dicom, require_pydicom
from petlbench.data.images.greys import FULL, GreyRange, Greys, is_deep, needs_white, range_of, range_of_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile


IMAGE_SUFFIXES = DICOM_SUFFIXES | frozenset(
    (".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png", ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
"""Suffixes, in lower case, of files that are surely meant as images; how they are decoded, the content decides."""

NOT_DATA = frozenset(
    ("__MACOSX", "__pycache__", "@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information")
)
"""Folders that systems and network disks leave beside images, and that hold none, or thumbnails of them."""

# Named one by one: Pillow would also run Ghostscript for an EPS file. Its JPEG reader takes MPO files too.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

MOST_PIXELS = 178_956_970
"""Most pixels of one image where nothing else is said: what Pillow bears before it suspects an attack."""

# Four channels of 32 bits, as they lie in a file that is not compressed.
_BYTES_A_PIXEL = 16

_LOCK = threading.Lock()

# What Pillow's decoders let through on broken files; anything else is a defect of ours.
_BROKEN = (OSError, EOFError, IndexError, KeyError, OverflowError, SyntaxError, TypeError, ValueError, struct.error)


def read_image(file: Path, decoding: Decoding | None = None) -> Image:
    """Return the image of a file, as `decode_image` does; of several frames or pages the first.

    Raises:
        InputError: When the file is absent, empty, cut off, broken, too large or of another format.
    """
    return decode_image(read_bytes(file, decoding), str(file), decoding)


def read_bytes(file: Path, decoding: Decoding | None = None) -> bytes:
    """Return the bytes of an image file.

    Raises:
        InputError: When it is absent, no regular file, too large for so many pixels, or cannot be read.
    """
    limit = _BYTES_A_PIXEL * (decoding or Decoding()).most_pixels
    try:
        return user_files.read_bytes(file, what="image", limit=limit)
    except InputError as error:
        if error.kind == "missing_file":
            raise InputError(f"the image {file} does not exist any more", kind="missing_image") from error
        hint = "--set dataset.most_pixels=NUMBER reads larger ones" if error.kind == "too_large" else error.hint
        raise InputError(error.message, hint=hint, kind=error.kind) from error


def is_image(file: Path) -> bool:
    """Return by a file's content whether it is an image in a known format; a DICOM folder's table of contents is none.

    Raises:
        InputError: When it is a DICOM file and pydicom is not installed.
    """
    try:
        with user_files.open_file(file, what="image") as stream:
            if is_dicom(stream.read(HEAD_BYTES)):
                require_pydicom(str(file))
                return file.name != "DICOMDIR"
            stream.seek(0)
            with open_image(stream):
                return True
    except InputError as error:
        if error.kind == "missing_package":
            raise
        return False
    except _BROKEN:
        return False


@dataclass(frozen=True)
class Decoding:
    """How the images of a dataset are decoded, beside what each file says itself.

    Args:
        greys: What is white among deep greys; None for an image alone: all bits of its numbers, or 1.
        most_pixels: Most pixels of an image, which bounds the memory that a file can take.
    """

    greys: Greys | None = None
    most_pixels: int = MOST_PIXELS


def has_deep_greys(stream: BinaryIO) -> bool:
    """Return by the head of a file whether its greys or colours have over 8 bits and it does not say what is white."""
    try:
        if is_dicom(stream.read(HEAD_BYTES)):
            return False
        stream.seek(0)
        with open_image(stream) as opened:
            return needs_white(opened)
    except _BROKEN:
        return False


def grey_range(stream: BinaryIO, name: str, decoding: Decoding) -> GreyRange:
    """Return the range of an image that has deep greys or colours.

    Raises:
        InputError: As for `decode_image`.
    """
    with _opened(stream, name, decoding) as opened:
        if has_deep_colours(opened):
            return _range_of_channels(_numbers(opened, stream))
        opened.load()
        return range_of(opened)


def decode_image(content: bytes, name: str, decoding: Decoding | None = None) -> Image:
    """Decode the bytes of one image.

    Args:
        content: The file's bytes.
        name: What the error calls the image.
        decoding: How the images of its dataset are decoded; DICOM files say themselves what is white.

    Returns:
        The image, turned as its EXIF orientation says: in RGB, 8 bits a channel, or in mode F, with greys from 0 to
        255, where its greys have more than 8 bits.

    Raises:
        InputError: When the bytes are no whole image, it has too many pixels, the pixel values have no known range, or
            a package that decodes them is not installed.
    """
    from PIL import ImageOps

    decoding = decoding or Decoding()
    if not content:
        raise _corrupt(name, "the file is empty")
    if is_dicom(content):
        try:
            return decode_dicom(content, name)
        except ValueError as error:
            raise _corrupt(name, str(error)) from error
    stream = io.BytesIO(content)
    with _opened(stream, name, decoding) as opened:
        if has_deep_colours(opened):
            return _deep(_numbers(opened, stream), name, decoding)
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)
        return _plain(opened, name, decoding)


def to_rgb(image: Image) -> Image:
    """Return a decoded image in mode RGB, 8 bits a channel.

    Greys of mode F, which resizing may have brought a little outside 0 to 255, are rounded to the nearest level.
    """
    import numpy as np
    from PIL import Image

    if image.mode == "RGB":
        return image
    levels = np.rint(np.asarray(image)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


@contextmanager
def _opened(stream: BinaryIO, name: str, decoding: Decoding) -> Iterator[ImageFile]:
    """Open an image, of which Pillow decodes nothing before it is asked to, with errors of ours."""
    with broken_named(name), open_image(stream) as image:
        _check_pixels(image, name, decoding.most_pixels)
        refuse_deep_planes(image)
        yield image


@contextmanager
def broken_named(name: str) -> Iterator[None]:
    """Raise errors of ours, which name the image, for what decoders let through on broken files."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except UnidentifiedImageError as error:
        raise _corrupt(name, "it is no image in a known format") from error
    except _BROKEN as error:
        raise _corrupt(name, str(error) or type(error).__name__) from error


def open_image(stream: BinaryIO) -> ImageFile:
    """Return an image in one of our formats, not yet decoded, however many pixels it has: whoever decodes it asks."""
    from PIL import Image

    with _LOCK:
        allowed, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(stream, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = allowed


def _check_pixels(image: Image, name: str, most: int) -> None:
    pixels = image.width * image.height
    if pixels > most:
        raise InputError(
            f"the image {name} has {image.width:,} x {image.height:,} pixels, more than dataset.most_pixels = {most}",
            hint=f"--set dataset.most_pixels={pixels} reads it, in {readable_size(3 * pixels)} of memory",
            kind="too_many_pixels",
        )


def _plain(image: Image, name: str, decoding: Decoding) -> Image:
    """Bring an image of any mode to RGB or, where its greys are deep, to F; transparent parts become black."""
    from PIL import Image

    if is_deep(image):
        return _scaled(image, name, decoding.greys if needs_white(image) else None)
    if image.mode != "RGB" and image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled(image: Image, name: str, greys: Greys | None) -> Image:
    """Spread deep greys over 0 to 255."""
    import numpy as np
    from PIL import Image

    levels = _levels(np.asarray(image, dtype=np.float64), range_of(image), name, greys)
    return Image.fromarray(levels.astype(np.float32))


def _numbers(opened: ImageFile, stream: BinaryIO) -> NDArray[Any]:
    stream.seek(0)
    return numbers_of(opened, open_image(stream))


def _range_of_channels(numbers: NDArray[Any]) -> GreyRange:
    """The range of colours, or of greys; alpha has no part in it."""
    greys = numbers.shape[-1] == 2
    return range_of_numbers(numbers[..., : 1 if greys else 3], "whole" if greys else "colour")


def _deep(numbers: NDArray[Any], name: str, decoding: Decoding) -> Image:
    """Spread deep colours, or deep greys beside alpha, over 0 to 255; transparent parts become black."""
    import numpy as np
    from PIL import Image

    own = _range_of_channels(numbers)
    colours = numbers[..., :1] if own.kind == "whole" else numbers[..., :3]
    levels = _levels(colours.astype(np.float64), own, name, decoding.greys)
    if colours.shape != numbers.shape:
        levels *= numbers[..., -1:] / FULL
    if own.kind == "whole":
        return Image.fromarray(levels[..., 0].astype(np.float32))
    return Image.fromarray(np.rint(levels).astype(np.uint8))


def _levels(numbers: NDArray[Any], own: GreyRange, name: str, greys: Greys | None) -> NDArray[Any]:
    """Spread the numbers over 0 to 255, the same for every image of a dataset, so that brightness compares."""
    alone = Greys.recorded({"floating": 1.0 if own.high <= 1.0 else float(FULL)})
    levels = (greys or alone).scaled(numbers, own)
    if levels is None:
        raise InputError(
            f"the image {name} has pixel values from {own.low:g} to {own.high:g}, a range that does not fit "
            f"0 (black) to {(greys or alone).white(own.kind):g} (white: dataset.grey_maximum)",
            hint="say what is white with --set dataset.grey_maximum=NUMBER, or convert it to 8 or 16 bits",
            kind="corrupt_image",
        )
    return levels


def _corrupt(name: str, why: str) -> InputError:
    return InputError(
        f"the image {name} cannot be decoded: {why}",
        hint="replace or remove the file",
        kind="corrupt_image",
    )
