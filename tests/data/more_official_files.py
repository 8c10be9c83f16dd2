"""Made-up files of more releases than the papers' eight, for `tests.data.official_files`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.data.drawn_files import draw, in_parts, keep, write_csv, write_list, zip_all, zip_folders


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
}
SLOW = frozenset(CLASSES) - {"medfmc_colon"}
MAKERS: Mapping[str, Callable[[Path, int], None]] = {
    "aptos2019": _aptos2019,
    "eyepacs": _eyepacs,
    "ham10000": _ham10000,
    "idrid": _idrid,
    "medfmc_colon": _medfmc_colon,
}
PACKERS: Mapping[str, Callable[[Path, Path], None]] = {
    "aptos2019": zip_all("aptos2019-blindness-detection.zip"),
    "eyepacs": _pack_eyepacs,
    "ham10000": zip_folders,
    "idrid": zip_folders,
}
