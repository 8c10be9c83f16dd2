"""What a file tells of its image: size, format and checksum."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from petlbench.data.images.decode import decode_image, read_bytes
from petlbench.data.images.dicom import is_dicom, require_pydicom

__all__ = ["ImageFacts", "read_facts", "read_size"]


@dataclass(frozen=True)
class ImageFacts:
    """What was found when an image was read whole.

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
    """Read and decode an image, once, and return what was found.

    Raises:
        InputError: When it is absent or cannot be decoded.
    """
    content = read_bytes(file)
    image = decode_image(content, str(file))
    kind = "DICOM" if is_dicom(content) else Image.open(io.BytesIO(content)).format or "unknown"
    return ImageFacts(hashlib.sha256(content).hexdigest(), len(content), image.width, image.height, kind)


def read_size(file: Path) -> tuple[int, int, str] | None:
    """Return width and height in pixels, as stored, and the format; None where a file's head cannot be read."""
    try:
        with file.open("rb") as stream:
            if is_dicom(stream.read(132)):
                require_pydicom(str(file))
                import pydicom

                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
                return int(header.Columns), int(header.Rows), "DICOM"
            with Image.open(file) as opened:
                return opened.width, opened.height, opened.format or "unknown"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
