"""How made-up official files are written: images that tell their class, tables, spreadsheets, DICOM, archives."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 32


def draw(file: Path, label: int | Sequence[int], seed: int, *, colour: bool = True) -> None:
    """Draw one image: blocks as its seed says, and a square that tells the class. The suffix gives the format.

    Args:
        file: The image.
        label: Its class; or, of several labels, the positions of those that it has: a smaller square for each.
        seed: Seed of the blocks.
        colour: Whether it has colours.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = pixels_of(label, seed)
    image = Image.fromarray(np.stack([pixels, pixels // 2, pixels // 3], axis=2) if colour else pixels)
    image.save(file, format="PNG" if file.suffix.lower() == ".png" else "JPEG")


def write_csv(file: Path, rows: Iterable[Sequence[object]], separator: str = ",") -> None:
    """Write the rows of a table, a header among them where it has one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=separator, lineterminator="\n").writerows(rows)


def write_excel(file: Path, sheet: str, rows: Iterable[Sequence[object]]) -> None:
    """Write the rows of one sheet, its header first."""
    import openpyxl

    file.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    page = book.active
    assert page is not None
    page.title = sheet
    for row in rows:
        page.append(list(row))
    book.save(file)


def write_dicom(file: Path, patient: str, side: str, view: str, label: int, seed: int) -> None:
    """Write one mammogram with the tags that the reader of a release asks for."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    pixels = pixels_of(label, seed)
    made = pydicom.Dataset()
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    made.SOPInstanceUID = generate_uid(entropy_srcs=[patient, side, view, str(seed)])
    made.Modality = "MG"
    made.PatientID = patient
    made.PatientAge = f"{40 + seed % 30:03d}Y"
    made.ImageLaterality = side
    made.ViewPosition = view
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = pixels.tobytes()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    file.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(file, enforce_file_format=True)


def write_list(file: Path, lines: Iterable[str]) -> None:
    """Write a list: a line an image."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def pixels_of(label: int | Sequence[int], seed: int) -> np.ndarray:
    """Return the greys of an image, (32, 32), 8 bits, as `draw` draws them."""
    rng = np.random.default_rng(seed)
    # Coarse blocks: two images that differed in fine noise alone would count as near duplicates.
    pixels = np.kron(rng.integers(0, 110, (8, 8)), np.ones((SIZE // 8, SIZE // 8), np.int64))
    pixels += rng.integers(0, 20, pixels.shape)
    if isinstance(label, int):
        left, top = 4 * (label % 4), 12 * (label // 4)
        pixels[top : top + 12, left : left + 12] += 40 + 12 * label
    else:
        for position in label:
            left, top = 4 * (position % 8), 4 * (position // 8)
            pixels[top : top + 4, left : left + 4] = 250
    return pixels.astype(np.uint8)


def keep(entry: Path, folder: Path) -> None:
    """Bring a file or a folder over as it is."""
    for file in [entry] if entry.is_file() else sorted(path for path in entry.rglob("*") if path.is_file()):
        target = folder / file.relative_to(entry.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())


def _zip(entry: Path, file: Path) -> Path:
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for path in [entry] if entry.is_file() else sorted(entry.rglob("*")):
            archive.write(path, path.relative_to(entry.parent))
    return file


def zip_folders(entry: Path, folder: Path) -> None:
    """One zip for every folder, of its name; files stay as they are."""
    if entry.is_dir():
        _zip(entry, folder / f"{entry.name}.zip")
    else:
        keep(entry, folder)


def zip_all(name: str) -> Callable[[Path, Path], None]:
    """All folders and files in one zip of that name."""

    def pack(entry: Path, folder: Path) -> None:
        _zip(entry, folder / name)

    return pack


def in_parts(parts: int) -> Callable[[Path, Path], None]:
    """A zip cut into parts of equal size that are joined before it can be opened."""

    def pack(entry: Path, folder: Path) -> None:
        if entry.is_file():
            keep(entry, folder)
            return
        whole = _zip(entry, folder / f"{entry.name}.zip")
        content = whole.read_bytes()
        whole.unlink()
        length = -(-len(content) // parts)
        for part in range(parts):
            target = folder / f"{whole.name}.{part + 1:03d}"
            target.write_bytes(content[part * length : (part + 1) * length])

    return pack
