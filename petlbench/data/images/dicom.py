"""DICOM images: decoded by pydicom, windowed as the file says, and turned from MONOCHROME1 to white on black."""

from __future__ import annotations

import io
import re
import struct
import zlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO

from petlbench.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


DICOM_SUFFIXES = frozenset((".dcm", ".dicom"))
"""Suffixes, in lower case, that DICOM files usually have; many have none."""

# What pydicom and its plugins let through on broken files.
_BROKEN = (ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)


HEAD_BYTES = 132
"""So many of a file's first bytes tell whether it is DICOM."""

# Old exports begin with the data set itself: an element of group 8 or 2, with its type or with a short length.
_BARE = re.compile(rb"[\x02\x08]\x00[\x00-\x20]\x00(?:[A-Z]{2}|.[\x00-\x04]\x00\x00)", re.DOTALL)


def is_dicom(content: bytes) -> bool:
    """Say by the mark after the first 128 bytes, or without them by its first element, whether a file is DICOM."""
    return content[128:HEAD_BYTES] == b"DICM" or _BARE.match(content) is not None


def read_dataset(stream: BinaryIO, **options: Any) -> Any:
    """Return pydicom's data set of a DICOM file, which may lack the first 128 bytes, the mark and its own header.

    Args:
        stream: The file, at its start.
        options: Those of ``pydicom.dcmread``.
    """
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    dataset = dcmread(stream, force=True, **options)
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, _ = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    return dataset


def require_pydicom(name: str) -> None:
    """Check that DICOM files, such as the named one, can be read.

    Raises:
        InputError: When pydicom is not installed.
    """
    if find_spec("pydicom") is None:
        raise InputError(
            f"{name} is a DICOM file, and the package pydicom is not installed",
            hint="install the extra: pip install 'petlbench[dicom]'",
            kind="missing_package",
        )


def decode_dicom(content: bytes, name: str) -> Image:
    """Decode the first frame of a DICOM file.

    Args:
        content: The file's bytes.
        name: What the error calls the image.

    Returns:
        Greys in mode F from 0 to 255, black to white: windowed as the file's first window or VOI table says, or else
        by the full range of its stored bits. Colours in RGB, 8 bits a channel.

    Raises:
        ValueError: When the bytes are no whole DICOM image.
        InputError: When pydicom, or the plugin that the file's compression needs, is not installed.
    """
    require_pydicom(name)
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        dataset = read_dataset(io.BytesIO(content))
        frame = _first_frame(dataset, name)
        grey = str(dataset.PhotometricInterpretation).startswith("MONOCHROME")
        return _greys(dataset, frame) if grey else _colours(dataset, frame)
    except (*_BROKEN, struct.error, zlib.error, BytesLengthException, InvalidDicomError) as error:
        raise ValueError(f"as DICOM: {str(error) or type(error).__name__}") from error


def _first_frame(dataset: Any, name: str) -> np.ndarray:
    """Return the stored values of the first frame: (H, W), or (H, W, 3) for colours, in RGB."""
    from pydicom.pixels import get_decoder, pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    missing = "; ".join(decoder.missing_dependencies)
    if not decoder.is_available:
        raise InputError(
            f"the image {name} is compressed ({syntax.name}), and no plugin of pydicom that decodes it is "
            f"installed: {missing}",
            hint="install one of them, for example: pip install python-gdcm",
            kind="missing_package",
        )
    try:
        frame: np.ndarray = pixel_array(dataset, index=0)
    except RuntimeError as error:
        also = f" (plugins that are not installed: {missing})" if missing else ""
        raise ValueError(f"{syntax.name}: {error}{also}") from error
    return frame


def _greys(dataset: Any, stored: np.ndarray) -> Image:
    import numpy as np
    from PIL import Image
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    low, high = _value_range(dataset)
    for table in dataset.get("VOILUTSequence") or ():
        # pydicom counts the entries of an 8-bit table with 8 bits, and wraps around where there are more than 256.
        table.LUTDescriptor[2] = 16
    values = apply_voi_lut(apply_modality_lut(stored, dataset), dataset)
    levels = ((values - low) * (255.0 / (high - low))).clip(0.0, 255.0)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        levels = 255.0 - levels
    return Image.fromarray(levels.astype(np.float32))


def _value_range(dataset: Any) -> tuple[float, float]:
    """Return the least and the greatest value that pydicom's window or tables can give."""
    for table in ("VOILUTSequence", "ModalityLUTSequence"):
        if dataset.get(table):
            return 0.0, 2.0 ** dataset[table][0].LUTDescriptor[2] - 1.0
    levels = 2.0**dataset.BitsStored
    low = -levels / 2.0 if dataset.PixelRepresentation else 0.0
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is None or intercept is None:
        return low, low + levels - 1.0
    return low * slope + intercept, (low + levels - 1.0) * slope + intercept


def _colours(dataset: Any, stored: np.ndarray) -> Image:
    import numpy as np
    from PIL import Image
    from pydicom.pixels import apply_color_lut

    bits = dataset.BitsStored
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
        bits = 8 * stored.dtype.itemsize
    levels = np.rint(stored * (255.0 / (2.0**bits - 1.0)))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))
