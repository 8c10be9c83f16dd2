"""Records whose images are files below one folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.data.images.decode import read_bytes, read_image
from petlbench.data.record import Record

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageFiles"]


class ImageFiles:
    """What all readers of image files share.

    Args:
        root: The folder that the records' paths are relative to.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def file(self, record: Record) -> Path:
        """Return the image's file."""
        return self._root / record.path

    def open(self, record: Record) -> Image:
        """Return the image in 8-bit RGB or, where its greys are deeper, in mode F from 0 to 255.

        Raises:
            InputError: When the file is absent or corrupt.
        """
        return read_image(self.file(record))

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256 of the file's bytes."""
        return hashlib.sha256(read_bytes(self.file(record))).hexdigest()
