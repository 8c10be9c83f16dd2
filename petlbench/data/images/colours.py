"""Colours of 16 bits a channel, and greys of 16 bits beside an alpha channel: whole, where Pillow keeps 8 bits.

Pillow unpacks the upper byte of each number. Told that the bytes stand the other way round, it unpacks the lower one,
so that two passes over a file give all 16 bits.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile, _Tile

_SWAPPED = "B" if sys.byteorder == "little" else "L"
_LOWER_BYTES = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", _SWAPPED))
}
"""The ways of unpacking that give the upper bytes, and those that give the lower bytes of the same numbers."""
_GREY_AND_ALPHA = "LA;16B"
"""One without a counterpart: the four bytes of a pixel are unpacked as four channels."""
_BITS, _PLANES = 258, 284
"""The TIFF tags BitsPerSample and PlanarConfiguration."""


def has_deep_colours(image: Image) -> bool:
    """Whether the colours of an image that is not yet decoded, or its greys beside an alpha channel, have 16 bits."""
    names = {_unpacking(tile) for tile in getattr(image, "tile", ())}
    return image.mode in ("RGB", "RGBA") and not names.isdisjoint((*_LOWER_BYTES, _GREY_AND_ALPHA))


def refuse_deep_planes(image: Image) -> None:
    """Refuse an image whose channels of 16 bits lie one behind the other: Pillow takes their bytes for numbers.

    Raises:
        ValueError: When they do.
    """
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) == 2 and len(tags.get(_BITS, ())) > 1 and max(tags[_BITS]) > 8:
        raise ValueError("its channels of 16 bits lie one behind the other, in planes; store them pixel by pixel")


def numbers_of(image: ImageFile, again: ImageFile) -> NDArray[np.uint16]:
    """Return the numbers of an image with deep colours, turned as its EXIF orientation says.

    Args:
        image: The image, not yet decoded.
        again: The same file, opened once more.

    Returns:
        Colours (H, W, 3), colours and alpha (H, W, 4), or greys and alpha (H, W, 2).
    """
    import numpy as np

    if _GREY_AND_ALPHA in map(_unpacking, image.tile):
        pairs = _bytes_of(image, "RGBA")
        return pairs[..., ::2] * np.uint16(256) + pairs[..., 1::2]
    lower = _bytes_of(again, _LOWER_BYTES[_unpacking(again.tile[0])])
    return _bytes_of(image, _unpacking(image.tile[0])) * np.uint16(256) + lower


def _unpacking(tile: _Tile) -> str:
    name = tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args
    return name if isinstance(name, str) else ""


def _bytes_of(image: ImageFile, unpacking: str) -> NDArray[np.uint16]:
    import numpy as np
    from PIL import ImageOps

    image.tile = [
        tile._replace(args=(unpacking, *tile.args[1:]) if isinstance(tile.args, tuple) else unpacking)
        for tile in image.tile
    ]
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(image).astype(np.uint16)
