"""From the bytes of an image file to an upright image, or to an error that names the file.

A decoded image is RGB of 8 bits a channel or, where the file's greys are deeper, of mode F with greys from 0 to 255.
Deep greys stay so until they are resized: `to_rgb` then rounds them.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.core.errors import InputError
from petlbench.data.images.dicom import DICOM_SUFFIXES, decode_dicom, is_dicom, require_pydicom

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IMAGE_SUFFIXES", "NOT_DATA", "decode_image", "is_image", "read_bytes", "read_image", "to_rgb"]

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
_FULL_16_BIT = 65535

# What Pillow's decoders let through on broken files; anything else is a defect of ours.
_BROKEN = (OSError, EOFError, IndexError, KeyError, OverflowError, SyntaxError, TypeError, ValueError, struct.error)


def read_image(file: Path) -> Image:
    """Return the image of a file, as `decode_image` does; of several frames or pages the first.

    Raises:
        InputError: When the file is absent, empty, cut off, broken or of another format.
    """
    return decode_image(read_bytes(file), str(file))


def read_bytes(file: Path) -> bytes:
    """Read a whole file.

    Raises:
        InputError: When the file is absent or cannot be read.
    """
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"the image {file} does not exist any more", kind="missing_image") from error
    except OSError as error:
        raise InputError(f"the image {file} cannot be read: {error.strerror}", kind="missing_image") from error


def is_image(file: Path) -> bool:
    """Return by a file's content whether it is an image in a known format; a DICOM folder's table of contents is none.

    Raises:
        InputError: When it is a DICOM file and pydicom is not installed.
    """
    from PIL import Image

    try:
        with file.open("rb") as stream:
            if is_dicom(stream.read(132)):
                require_pydicom(str(file))
                return file.name != "DICOMDIR"
            stream.seek(0)
            with Image.open(stream, formats=_FORMATS):
                return True
    except Image.DecompressionBombError:
        return True
    except _BROKEN:
        return False


def decode_image(content: bytes, name: str) -> Image:
    """Decode the bytes of one image.

    Args:
        content: The file's bytes.
        name: What the error calls the image.

    Returns:
        The image, turned as its EXIF orientation says: in RGB, 8 bits a channel, or in mode F, with greys from 0 to
        255, where its greys have more than 8 bits.

    Raises:
        InputError: When the bytes are no whole image, the pixel values have no known range, or a package that
            decodes them is not installed.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not content:
        raise _corrupt(name, "the file is empty")
    try:
        if is_dicom(content):
            return decode_dicom(content, name)
        with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
            return _plain(opened, name)
    except UnidentifiedImageError as error:
        raise _corrupt(name, "it is no image in a known format") from error
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise _corrupt(name, str(error) or type(error).__name__) from error


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


def _plain(image: Image, name: str) -> Image:
    """Bring an image of any mode to RGB or, where its greys are deep, to F; transparent parts become black."""
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scaled(image, name)
    if image.mode != "RGB" and image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled(image: Image, name: str) -> Image:
    """Spread deep greys over 0 to 255 by their full range, the same for every image, so that brightness compares."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    limit = 1.0 if image.mode == "F" and high <= 1.0 else float(_FULL_16_BIT)
    if not (low >= 0.0 and high <= limit):
        raise InputError(
            f"the image {name} has pixel values from {low:g} to {high:g}, a range that no format fixes",
            hint="convert it to 8 or 16 bits (0 to 65535), or to floats from 0 to 1",
            kind="corrupt_image",
        )
    return Image.fromarray((values * (255.0 / limit)).astype(np.float32))


def _corrupt(name: str, why: str) -> InputError:
    return InputError(
        f"the image {name} cannot be decoded: {why}",
        hint="replace or remove the file, or run with --skip-corrupt",
        kind="corrupt_image",
    )
