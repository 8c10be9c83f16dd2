"""Made-up files of more releases than the papers' eight, for `tests.data.official_files`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.data.drawn_files import draw, in_parts, keep, write_csv, write_excel, write_list, zip_all, zip_folders

_Maker = Callable[[Path, int], None]


def _aptos2019(folder: Path, images_per_class: int) -> None:
    """Ids without suffix; test images that have no grade."""
    rows: list[Sequence[object]] = [("id_code", "diagnosis")]
    for index in range(5 * images_per_class):
        image = f"{index:06x}cfc8afb6"
        draw(folder / "train_images" / f"{image}.png", index % 5, index)
        rows.append((image, index % 5))
    write_csv(folder / "train.csv", rows)
    draw(folder / "test_images" / "ffffffcfc8af.png", 0, 9_000)
    write_csv(folder / "test.csv", [("id_code",), ("ffffffcfc8af",)])


def _eyepacs(folder: Path, images_per_class: int) -> None:
    """Two eyes a patient, whose grades may differ; the table of the test part came later."""
    patient = 10
    for part, count in (("train", images_per_class), ("test", 4)):
        rows: list[Sequence[object]] = []
        for index in range(10 * max(3, count // 2)):
            image = f"{patient + index // 2}_{('left', 'right')[index % 2]}"
            draw(folder / part / f"{image}.jpeg", index % 5, 1_000 * patient + index)
            rows.append((image, index % 5, ("Public", "Private")[index % 4 // 2])[: 2 if part == "train" else 3])
        header = ("image", "level", "Usage")[: len(rows[0])]
        write_csv(folder / ("trainLabels.csv" if part == "train" else "retinopathy_solution.csv"), [header, *rows])
        patient += len(rows) // 2


HAM10000 = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def _ham10000(folder: Path, images_per_class: int) -> None:
    """Images in two folders, two of each lesion; once neither age nor sex is known."""
    rows: list[Sequence[object]] = [
        ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset"),
    ]
    for index in range(7 * max(6, images_per_class)):
        label, pair = index % 7, index // 14
        image = f"ISIC_{24306 + index:07d}"
        draw(folder / f"HAM10000_images_part_{1 + index % 2}" / f"{image}.jpg", label, index)
        age, sex = ("", "unknown") if index == 3 else (f"{40 + pair}.0", ("male", "female")[pair % 2])
        rows.append((f"HAM_{label:03d}{pair:04d}", image, HAM10000[label], "histo", age, sex, "back", "vidir_modern"))
    write_csv(folder / "HAM10000_metadata.csv", rows)


def _idrid(folder: Path, images_per_class: int) -> None:
    """Names that repeat between the parts; a blank at the end of a column's name, and empty columns."""
    top = folder / "B. Disease Grading"
    for part, side, count in (("a", "Training", images_per_class), ("b", "Testing", 4)):
        empty = ("",) * (3 if side == "Training" else 0)
        rows: list[Sequence[object]] = [("Image name", "Retinopathy grade", "Risk of macular edema ", *empty)]
        for index in range(5 * count):
            image = f"IDRiD_{index + 1:03d}"
            seed = index + (0 if side == "Training" else 5_000)
            draw(top / "1. Original Images" / f"{part}. {side} Set" / f"{image}.jpg", index % 5, seed)
            rows.append((image, index % 5, index % 3, *empty))
        write_csv(top / "2. Groundtruths" / f"{part}. IDRiD_Disease Grading_{side} Labels.csv", rows)


def _medfmc_colon(folder: Path, images_per_class: int) -> None:
    """Names with blanks, patches of slides, and images that no list labels."""
    top, lists = folder / "colon", {}
    for part, (side, count) in enumerate((("train_20", images_per_class), ("val_20", 4), ("test_WithLabel", 4))):
        lines = []
        for index in range(2 * count):
            label, slide = index % 2, part * 50 + index // 4
            image = f"2019-{10327 + slide}-1-1-{label}_2019-05-28 17_55_39-lv1-47692-11609-5464-5695p{index:04d}.png"
            draw(top / "images" / image, label, 1_000 * part + index)
            lines.append(f"{image} {label}")
        lists[side] = lines
    lists["trainval"] = lists["train_20"] + lists["val_20"]
    for name, lines in lists.items():
        write_list(top / f"{name}.txt", lines)
    hidden = "1903326001_2019-06-11 12_07_06-lv1-18648-16700-3610-3417p0009.png"
    draw(top / "images" / hidden, 0, 9_004)
    write_list(top / "test_WithoutLabel.txt", [hidden])
    _few_shot_lists(top, "colon", lists["trainval"])


def _labels_of(index: int, count: int) -> tuple[int, ...]:
    """Return which of some labels an image has: none, one or two."""
    if index % 10 == 9:
        return ()
    return tuple(sorted({index % count, *([(7 * index + 3) % count] if index % 3 == 0 else [])}))


def _medfmc(name: str, image_of: Callable[[int], str], labels: int, separator: str, parts: Sequence[str]) -> _Maker:
    """Make a maker: a cell for each label, which stand after a blank."""

    def make(folder: Path, images_per_class: int) -> None:
        top, lists = folder / name, dict[str, list[str]]()
        for part, count in zip(parts, (images_per_class, 2, 3), strict=True):
            lists[part] = []
            for number in range(labels * count):
                index = 1_000 * parts.index(part) + number
                own = _labels_of(number, labels)
                draw(top / "images" / image_of(index), own, index)
                cells = separator.join(str(int(position in own)) for position in range(labels))
                lists[part].append(f"{image_of(index)} {cells}")
        lists["trainval"] = lists["train_20"] + lists["val_20"]
        for part, lines in lists.items():
            write_list(top / f"{part}.txt", lines)
        draw(top / "images" / image_of(9_999), (), 9_999)
        write_list(top / "test_WithoutLabel.txt", [image_of(9_999)])
        _few_shot_lists(top, name, lists["trainval"])

    return make


_LISTS = ("train_20", "val_20", "test_WithLabel")
CHEST14 = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)


def _chestxray14(folder: Path, images_per_class: int) -> None:
    """Several labels in a cell, patients with two images, and lists that give sides."""
    header = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender")
    more = ("View Position", "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]")
    rows: list[Sequence[object]] = [(*header, *more)]
    lists: dict[str, list[str]] = {"train_val_list": [], "test_list": []}
    for index in range(14 * (images_per_class + 3)):
        own, patient = _labels_of(index, 14), index // 2 + 1
        image = f"{patient:08d}_{index % 2:03d}.png"
        draw(folder / "images" / image, own, index, colour=False)
        findings = "|".join(CHEST14[position] for position in own) or "No Finding"
        facts = (index % 2, patient, 30 + patient % 50, "MF"[patient % 2], ("PA", "AP")[index % 2])
        rows.append((image, findings, *facts, 2682, 2749, 0.143, 0.143))
        lists["train_val_list" if index < 14 * images_per_class else "test_list"].append(image)
    write_csv(folder / "Data_Entry_2017_v2020.csv", rows)
    for name, images in lists.items():
        write_list(folder / f"{name}.txt", images)


CHEXPERT = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other"),
    *("Fracture", "Support Devices"),
)


def _chexpert(folder: Path, images_per_class: int) -> None:
    """Patients in paths, and cells that hold 1, 0, -1 or nothing."""
    header = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT)
    for part, count, first in (("train", images_per_class, 1), ("valid", 3, 64541)):
        rows: list[Sequence[object]] = [header]
        for index in range(14 * count):
            own, patient, view = _labels_of(index, 14), first + index // 2, index % 2
            name = f"view{view + 1}_{('frontal', 'lateral')[view]}.jpg"
            path = f"CheXpert-v1.0-small/{part}/patient{patient:05d}/study1/{name}"
            draw(folder / path, own, first + index, colour=False)
            cells = [_chexpert_cell(position in own, index + position, part) for position in range(14)]
            about = (("Female", "Male")[patient % 2], 40 + patient % 40, ("Frontal", "Lateral")[view], ("AP", "")[view])
            rows.append((path, *about, *cells))
        write_csv(folder / "CheXpert-v1.0-small" / f"{part}.csv", rows)


def _chexpert_cell(present: bool, number: int, part: str) -> str:
    if present or part == "valid":
        return "1.0" if present else "0.0"
    return "-1.0" if number % 11 == 0 else "" if number % 3 == 0 else "0.0"


RFMID = (
    *("DR", "ARMD", "MH", "DN", "MYA", "BRVO", "TSLN", "ERM", "LS", "MS", "CSR", "ODC", "CRVO", "TV", "AH"),
    *("ODP", "ODE", "ST", "AION", "PT", "RT", "RS", "CRS", "EDN", "RPEC", "MHL", "RP", "CWS", "CB", "ODPM"),
    *("PRH", "MNF", "HR", "CRAO", "TD", "CME", "PTCR", "CF", "VH", "MCA", "VS", "BRAO", "PLQ", "HPED", "CL"),
)


def _rfmid(folder: Path, images_per_class: int) -> None:
    """Three parts whose names are the same numbers; a column for each of 45 labels, and one that is none of them."""
    top = folder / "A. RFMiD_All_Classes_Dataset"
    parts = (("a", "Training", max(4, images_per_class // 2)), ("b", "Validation", 2), ("c", "Testing", 2))
    for letter, side, count in parts:
        rows: list[Sequence[object]] = [("ID", "Disease_Risk", *RFMID)]
        for index in range(45 * count):
            own = _labels_of(index, 45)
            seed = 1_000 * "abc".index(letter) + index
            draw(top / "1. Original Images" / f"{letter}. {side} Set" / f"{index + 1}.png", own, seed)
            rows.append((index + 1, int(bool(own)), *(int(position in own) for position in range(45))))
        write_csv(top / "2. Groundtruths" / f"{letter}. RFMiD_{side}_Labels.csv", rows)


def _odir(folder: Path, images_per_class: int) -> None:
    """Two eyes a patient, in one row of a spreadsheet, whose labels both have."""
    header = ("ID", "Patient Age", "Patient Sex", "Left-Fundus", "Right-Fundus")
    keywords = ("Left-Diagnostic Keywords", "Right-Diagnostic Keywords")
    patient = 0
    for part, count in (("Training", images_per_class), ("Off-site Test", 2), ("On-site Test", 3)):
        rows: list[Sequence[object]] = [(*header, *keywords, *"NDGCAHMO")]
        for index in range(8 * count):
            own = _labels_of(index, 8) or (0,)
            eyes = [f"{patient}_left.jpg", f"{patient}_right.jpg"]
            for number, eye in enumerate(eyes):
                draw(folder / f"{part} Set" / "Images" / eye, own, 2 * patient + number)
            about = (patient, 40 + patient % 40, ("Female", "Male")[patient % 2], *eyes)
            rows.append((*about, "normal fundus", "normal fundus", *(int(position in own) for position in range(8))))
            patient += 1
        name = f"{part.lower()} annotation (English).xlsx"
        write_excel(folder / f"{part} Set" / "Annotation" / name, "Sheet1", rows)


def _few_shot_lists(top: Path, name: str, lines: Sequence[str]) -> None:
    """Five draws of each number of shots: some of the lines to train on, and the others to validate on."""
    for shots in (1, 5, 10):
        for draw_number in range(5):
            first = 2 * draw_number
            chosen = lines[first : first + 2 * shots]
            for side, part in (("train", chosen), ("val", [line for line in lines if line not in chosen])):
                write_list(top / f"{name}_{shots}-shot_{side}_exp{draw_number + 1}.txt", part)


def _pack_eyepacs(entry: Path, folder: Path) -> None:
    if entry.name == "retinopathy_solution.csv":
        keep(entry, folder)
    elif entry.is_file():
        zip_all(f"{entry.name}.zip")(entry, folder)
    else:
        in_parts(5 if entry.name == "train" else 7)(entry, folder)


CLASSES: Mapping[str, int] = {
    "aptos2019": 5,
    "eyepacs": 5,
    "ham10000": 7,
    "idrid": 5,
    "medfmc_colon": 2,
    "medfmc_chest": 19,
    "medfmc_endo": 4,
    "chestxray14": 14,
    "chexpert": 14,
    "rfmid": 45,
    "odir": 8,
}
SLOW = frozenset(CLASSES) - {"medfmc_colon", "chestxray14"}
MAKERS: Mapping[str, _Maker] = {
    "aptos2019": _aptos2019,
    "eyepacs": _eyepacs,
    "ham10000": _ham10000,
    "idrid": _idrid,
    "medfmc_colon": _medfmc_colon,
    "medfmc_chest": _medfmc("chest", lambda index: f"5C08DC8455{index:04X}.png", 19, ",", _LISTS),
    "medfmc_endo": _medfmc(
        "endo", lambda index: f"13333_2021.11_{index // 4:04d}_{54971718 + index}.png", 4, " ", _LISTS
    ),
    "chestxray14": _chestxray14,
    "chexpert": _chexpert,
    "rfmid": _rfmid,
    "odir": _odir,
}
PACKERS: Mapping[str, Callable[[Path, Path], None]] = {
    "aptos2019": zip_all("aptos2019-blindness-detection.zip"),
    "eyepacs": _pack_eyepacs,
    "ham10000": zip_folders,
    "idrid": zip_folders,
    "rfmid": zip_folders,
}
