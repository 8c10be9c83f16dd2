"""Small made-up files in the exact layout of official releases: no image shows anybody.

`make` writes the files as they lie once unpacked, `archives` as they are downloaded. Names, folders, columns and DICOM
tags are the official ones; images have 32x32 pixels, differ from one another, and can be told apart by class.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from petlbench.core.catalog import Catalog
from tests.data import more_official_files as more
from tests.data.drawn_files import draw, in_parts, keep, write_csv, write_dicom, write_excel, zip_all, zip_folders

CLASSES: Mapping[str, int] = {
    "messidor2": 5,
    "isic2018": 7,
    "ddsm": 3,
    "covid": 3,
    "ddr": 5,
    "isic2016": 2,
    "cmmd": 2,
    "chncxr": 2,
    **more.CLASSES,
}
"""Number of classes by the name of the dataset's card."""
MORE = tuple(more.CLASSES)
RELEASES = tuple(pytest.param(name, marks=pytest.mark.slow) if name in more.SLOW else name for name in CLASSES)
"""The names for tests that take seconds of each: those whose layouts hold nothing new are slow."""


def make(name: str, folder: Path, *, images_per_class: int = 12) -> Path:
    """Write the unpacked files of a release.

    Args:
        name: The name of the dataset's card.
        folder: Where to; it is made.
        images_per_class: Images of a class, of the training part where the release has parts; at least 4.
            Where several images belong to a patient there are at least six patients a class, hence maybe more images.

    Returns:
        The folder: what ``read_official`` takes as its root.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _MAKERS[name](folder, images_per_class)
    return folder


def archives(name: str, folder: Path, *, images_per_class: int = 12) -> Path:
    """Write the files of a release as they are downloaded: archives, their parts, and what lies beside them.

    Args:
        name: The name of the dataset's card.
        folder: Where to; it is made.
        images_per_class: As for `make`.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        unpacked = make(name, Path(temporary) / "unpacked", images_per_class=images_per_class)
        for entry in sorted(unpacked.iterdir()):
            _PACKERS.get(name, keep)(entry, folder)
    return folder


def unchecked_card(name: str, folder: Path) -> Path:
    """Write a dataset's shipped card without checksums and sizes, which no made-up file can have.

    Args:
        name: The name of the dataset's card.
        folder: Where to; it exists.

    Returns:
        The card, whose stem is the name: it can be given wherever the name can.
    """
    text = Catalog().find("dataset", name).file.read_text(encoding="utf-8")
    file = folder / f"{name}.toml"
    file.write_text(re.sub(r"(?m)^(sha256|md5|bytes) = .*\n", "", text), encoding="utf-8")
    return file


def _messidor2(folder: Path, images_per_class: int) -> None:
    """Pairs of eyes; the grades of a pair may differ; the last two pairs cannot be graded."""
    grades: list[int | str] = [index % 5 for index in range(5 * images_per_class)]
    grades += [""] * (4 + len(grades) % 2)
    rows: list[Sequence[object]] = [("image_id", "adjudicated_dr_grade", "adjudicated_dme", "adjudicated_gradable")]
    names: list[str] = []
    for index, grade in enumerate(grades):
        stem = f"20051020_{43808 + index}_0100_PP" if index % 3 else f"IM{index:06d}"
        written = f"{stem}.png" if index % 3 else f"{stem}.jpg"
        # The table writes every ending small; some files have capitals.
        on_disk = f"{stem}.JPG" if index % 6 == 0 else written
        draw(folder / "IMAGES" / on_disk, 0 if grade == "" else int(grade), index)
        names.append(on_disk)
        rows.append((written, grade, "" if grade == "" else int(int(grade) > 2), int(grade != "")))
    write_csv(folder / "messidor_data.csv", rows)
    pairs = [("left", "right"), *zip(names[::2], names[1::2], strict=True)]
    write_csv(folder / "messidor-2.csv", pairs, separator=";")


ISIC2018 = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def _isic2018(folder: Path, images_per_class: int) -> None:
    """Three parts with one-hot tables; two images a lesion, known for the training part only."""
    number, lesions = 24306, [("image", "lesion_id", "diagnosis_confirm_type")]
    for part, count in (("Training", images_per_class), ("Validation", 2), ("Test", 4)):
        images = folder / f"ISIC2018_Task3_{part}_Input"
        rows: list[Sequence[object]] = [("image", *ISIC2018)]
        for index in range(len(ISIC2018) * count):
            label = index % len(ISIC2018)
            image = f"ISIC_{number + index:07d}"
            draw(images / f"{image}.jpg", label, number + index)
            rows.append((image, *(float(label == position) for position in range(len(ISIC2018)))))
            if part == "Training":
                pair = index // (2 * len(ISIC2018))
                lesions.append((image, f"HAM_{label:03d}{pair:04d}", "histopathology"))
        (images / "ATTRIBUTION.txt").write_text("Made up.\n", encoding="utf-8")
        write_csv(
            folder / f"ISIC2018_Task3_{part}_GroundTruth" / f"ISIC2018_Task3_{part}_GroundTruth.csv",
            rows,
        )
        number += len(ISIC2018) * count
    write_csv(folder / "ISIC2018_Task3_Training_LesionGroupings.csv", lesions)


DDSM_COLUMNS = ("fullPath", "fileName", "View", "Side", "Status", "Tumour_Contour", "Tumour_Contour2", "Age", "Density")


def _ddsm(folder: Path, images_per_class: int) -> None:
    """Four views a case; the same case number stands in several status folders; masks lie among the images."""
    top = folder / "MINI-DDSM-Complete-JPEG-8"
    rows: list[Sequence[object]] = [DDSM_COLUMNS]
    for label, status in enumerate(("Normal", "Benign", "Cancer")):
        for case in range(1, max(6, images_per_class // 4) + 1):
            for view, (side, position) in enumerate((s, p) for s in ("LEFT", "RIGHT") for p in ("CC", "MLO")):
                file = f"{'ABC'[label]}_{case:04d}_1.{side}_{position}.jpg"
                place = top / status / f"{case:04d}" / file
                draw(place, label, 1000 * label + 10 * case + view, colour=False)
                path, contour = f"{status}\\{case:04d}\\{file}", "-"
                if label and side == "LEFT":
                    contour = path.replace(".jpg", "_Mask.jpg")
                    draw(place.with_name(place.name.replace(".jpg", "_Mask.jpg")), label, case, colour=False)
                rows.append((path, file, position, side, status, contour, "-", 40 + 3 * case, 1 + case % 4))
    write_excel(top / "DataWMask.xlsx", "Data", rows)


def _covid(folder: Path, images_per_class: int) -> None:
    """Class folders; some files end in .jfif or .jpeg, and names repeat between folders."""
    for label, name in enumerate(("covid", "normal", "virus")):
        for index in range(images_per_class):
            ending = ("png", "jfif", "jpg", "jpeg")[index % 4]
            draw(folder / "COVID_IEEE" / name / f"image ({index}).{ending}", label, 100 * label + index, colour=False)


def _ddr(folder: Path, images_per_class: int) -> None:
    """Three official parts, and label 5 for what cannot be graded."""
    top = folder / "DDR-dataset" / "DR_grading"
    number = 0
    for part, count in (("train", images_per_class), ("valid", 2), ("test", 4)):
        lines: list[Sequence[object]] = []
        for index in range(5 * count + 2):
            label = index % 5 if index < 5 * count else 5
            file = f"007-{number:04d}-{100 + index:03d}.jpg"
            draw(top / part / file, label, number)
            lines.append((file, label))
            number += 1
        write_csv(top / f"{part}.txt", lines, separator=" ")
    # The release's other tasks have images too.
    draw(folder / "DDR-dataset" / "lesion_segmentation" / "train" / "image" / "007-1774-100.jpg", 0, number)


def _isic2016(folder: Path, images_per_class: int) -> None:
    """Two parts, without headers; each writes its labels in a code of its own."""
    number = 0
    for part, count, code in (("Training", images_per_class, ("benign", "malignant")), ("Test", 6, ("0.0", "1.0"))):
        rows: list[Sequence[object]] = []
        for index in range(2 * count):
            image = f"ISIC_{number:07d}"
            draw(folder / f"ISBI2016_ISIC_Part3_{part}_Data" / f"{image}.jpg", index % 2, number)
            rows.append((image, code[index % 2]))
            number += 1
        write_csv(folder / f"ISBI2016_ISIC_Part3_{part}_GroundTruth.csv", rows)


CMMD_COLUMNS = ("ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype")


def _cmmd(folder: Path, images_per_class: int) -> None:
    """Two views a breast; of most patients one breast only has a label; file names repeat in every series."""
    top = folder / "manifest-1616439774456"
    clinical: list[Sequence[object]] = [CMMD_COLUMNS]
    series: list[Sequence[object]] = [("Series UID", "Collection", "Subject ID", "Number of Images", "File Location")]
    for index in range(2 * max(6, images_per_class // 2)):
        label, cohort = index % 2, "D2" if index % 4 == 3 else "D1"
        patient = f"{cohort}-{index + 1:04d}"
        place = f"CMMD/{patient}/07-18-2010-NA-NA-{79377 + index}/1.000000-NA-{70244 + index}"
        both = index % 3 != 0
        labelled = ("L", "R") if index % 5 == 0 and both else ("LR"[index % 2],)
        sides = ("L", "R") if both else labelled
        views = [(side, view) for side in sides for view in ("CC", "MLO")]
        for position, (side, view) in enumerate(views, start=1):
            write_dicom(top / place / f"1-{position}.dcm", patient, side, view, label, 10 * index + position)
        subtype = "Luminal A" if cohort == "D2" else ""
        verdict = ("Benign", "Malignant")[label]
        clinical += [(patient, side, 40 + index, 2, "mass", verdict, subtype) for side in labelled]
        series.append((f"1.3.6.1.4.1.14519.{index}", "CMMD", patient, len(views), f"./{place}"))
    write_csv(top / "metadata.csv", series)
    write_excel(folder / "CMMD_clinicaldata_revision.xlsx", "Sheet1", clinical)


def _chncxr(folder: Path, images_per_class: int) -> None:
    """The last digit of the name is the label; a short text beside each image gives sex and age."""
    top = folder / "ChinaSet_AllFiles"
    for index in range(2 * images_per_class):
        label = index // images_per_class
        name = f"CHNCXR_{index + 1:04d}_{label}"
        draw(top / "CXR_png" / f"{name}.png", label, index, colour=False)
        text = f"{('male', 'female')[index % 2]} {20 + index}yrs\n{('normal', 'left upper PTB')[label]}\n"
        readings = top / "ClinicalReadings" / f"{name}.txt"
        readings.parent.mkdir(exist_ok=True)
        readings.write_text(text, encoding="utf-8")


_MAKERS: Mapping[str, Callable[[Path, int], None]] = {
    "messidor2": _messidor2,
    "isic2018": _isic2018,
    "ddsm": _ddsm,
    "covid": _covid,
    "ddr": _ddr,
    "isic2016": _isic2016,
    "cmmd": _cmmd,
    "chncxr": _chncxr,
    **more.MAKERS,
}
_PACKERS: Mapping[str, Callable[[Path, Path], None]] = {
    "messidor2": in_parts(4),
    "isic2018": zip_folders,
    "ddsm": zip_all("archive.zip"),
    "covid": zip_all("archive.zip"),
    "ddr": in_parts(10),
    "isic2016": zip_folders,
    "chncxr": zip_folders,
    **more.PACKERS,
}
