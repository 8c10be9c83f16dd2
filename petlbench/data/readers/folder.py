"""The reader for a folder of class folders, with or without train, val and test folders above them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar, Literal

from petlbench.core.errors import InputError
from petlbench.core.text import first_few
from petlbench.data.images.decode import IMAGE_SUFFIXES, is_image
from petlbench.data.images.dicom import DICOM_SUFFIXES, require_pydicom
from petlbench.data.images.files import files_below, is_folder, sorted_entries
from petlbench.data.many_records import kept_records
from petlbench.data.notes import named_side, option
from petlbench.data.readers.base import ImageFiles, ReaderCard, Source, choose_classes
from petlbench.data.readers.settings import LabelSettings, silent
from petlbench.data.record import SPLIT_ALIASES, Record, Split


class FolderSettings(LabelSettings):
    """What the folders are."""

    layout: Literal["auto", "classes", "sides"] = silent(
        "auto",
        description="Whether the folders at the top are classes, or sides of a split such as train_images; of itself, "
        "folders called train, val and test that hold class folders are sides.",
    )
    skip: str = silent("", description="Paths that are passed over, with * for any characters: test, *_mask.png")


@dataclass(frozen=True)
class _ClassFolder:
    """The images of a class folder.

    Args:
        paths: Their paths from the root, sorted, with a zero character between them: a text takes a third of a list,
            and those of several folders are sorted as all paths together are.
        count: How many.
        split: Their side.
        name: The folder's name.
    """

    paths: str
    count: int
    split: Split | None
    name: str

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths.split("\0"))


class FolderReader(ImageFiles):
    """Reads ``CLASS/…/image`` or ``train|val|test/CLASS/…/image`` below a folder.

    A file is an image where its suffix says so or, with any other suffix or none, where its content does.

    Raises:
        InputError: When the folder's layout is not one of the two, a class folder is empty, or there are fewer
            than two classes; or when there are DICOM files and no pydicom.
    """

    card = ReaderCard(name="folder", title="a folder of class folders", rank=-1)
    Settings: ClassVar[type[FolderSettings]] = FolderSettings

    def __init__(self, source: Source) -> None:
        self.root = source.folder()
        self._settings: FolderSettings = source.settings
        self._ignored: list[str] = []
        self._skipped = 0
        folders = sorted(self._find(), key=lambda folder: folder.paths)
        place = f"the folder {self.root}"
        names = [folder.name for folder in folders for _ in range(folder.count)]
        labels, notes = self._settings.relabelled(names, place)
        self.classes = choose_classes((label for label in labels if label is not None), source.classes, place)
        images = ((path, folder.split) for folder in folders for path in folder)
        self.records = kept_records(
            Record(path, path, source.labels.parse(label, self.classes), split=split)
            for (path, split), label in zip(images, labels, strict=True)
            if label is not None
        )
        self.notes = (*self._left_out(), *notes)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether it is a folder: any, so that every other reader comes first."""
        return path.is_dir()

    def _left_out(self) -> Iterator[str]:
        """Say which files were left out."""
        if self._ignored:
            count, names = len(self._ignored), first_few(sorted(self._ignored), _MOST_NAMED)
            what = "1 file that is no image is" if count == 1 else f"{count} files that are no images are"
            yield f"{what} left out: {names}"
        if self._skipped:
            yield f"{self._skipped} files or folders like '{self._settings.skip}' are left out (dataset.skip)"

    def _find(self) -> Iterator[_ClassFolder]:
        """Yield every class folder with its images."""
        top = self._subfolders(self.root)
        splits = self._sides(top)
        if not splits:
            self._require_classes(top)
            yield from self._classes(top, None)
        for split, folder in splits.items():
            inside = self._subfolders(folder)
            if not inside:
                name = folder.name
                raise InputError(
                    f"the folder {folder} has no class folders: what lies in it has no label",
                    hint=f"{_LAYOUT_HINT}; {option('skip', name)} leaves it out, and --set dataset.layout=classes "
                    "takes the folders for classes",
                    kind="too_few_classes",
                )
            yield from self._classes(inside, split)

    def _sides(self, top: Sequence[Path]) -> dict[Split, Path]:
        """Recognise train, val and test folders; an empty mapping where the folders are classes."""
        layout = self._settings.layout
        if layout == "classes":
            return {}
        splits: dict[Split, Path] = {}
        others: list[str] = []
        for folder in top:
            split = named_side(folder.name) if layout == "sides" else SPLIT_ALIASES.get(folder.name.lower())
            if split is None:
                others.append(folder.name)
            elif split in splits:
                raise InputError(
                    f"the folder {self.root} has two folders for '{split}': {splits[split].name} and {folder.name}",
                    hint="keep one of the two",
                    kind="bad_layout",
                )
            else:
                splits[split] = folder
        if layout == "auto" and others and not any(map(_has_folders, splits.values())):
            return {}  # images of a class that is called 'valid', or 'train'
        if others and (splits or layout == "sides"):
            names = ", ".join(folder.name for folder in splits.values()) or "none"
            raise InputError(
                f"the folder {self.root} mixes split folders ({names}) with other folders ({', '.join(others)})",
                hint=f"{_LAYOUT_HINT}; where all of them are classes: --set dataset.layout=classes",
                kind="bad_layout",
            )
        return splits

    def _require_classes(self, folders: Sequence[Path]) -> None:
        """Refuse a single folder, or none; where a table lies beside it, it is what was meant."""
        if len(folders) < 2 and (tables := sorted(self.root.glob("*.csv"))):
            raise InputError(
                f"the folder {self.root} has {len(folders) or 'no'} class folder, and the table {tables[0].name}",
                hint=f"give the table: --dataset '{tables[0]}'",
                kind="too_few_classes",
            )

    def _classes(self, folders: Sequence[Path], split: Split | None) -> Iterator[_ClassFolder]:
        for folder in folders:
            paths = self._images(folder)
            if not paths:
                raise InputError(
                    f"the class '{folder.name}' is empty: {folder} holds no image",
                    hint=f"add images ({' '.join(sorted(IMAGE_SUFFIXES))}) or remove the folder",
                    kind="empty_class",
                )
            yield _ClassFolder("\0".join(sorted(paths)), len(paths), split, folder.name)

    def _images(self, folder: Path) -> list[str]:
        """Return the paths of the images below a folder, and put what is none aside."""
        images: list[str] = []
        for path in files_below(folder, f"{folder.relative_to(self.root).as_posix()}/"):
            if not self._is_skipped(path):
                (images if _holds_image(self.root / path) else self._ignored).append(path)
        return images

    def _subfolders(self, folder: Path) -> list[Path]:
        folders: list[Path] = []
        for entry in sorted_entries(folder):
            path = Path(entry.path).relative_to(self.root).as_posix()
            if not is_folder(entry):
                self._ignored.append(path)
            elif not self._is_skipped(path):
                folders.append(Path(entry.path))
        return folders

    def _is_skipped(self, path: str) -> bool:
        is_skipped = bool(self._settings.skip) and fnmatchcase(path, self._settings.skip)
        self._skipped += is_skipped
        return is_skipped


_LAYOUT_HINT = "the layout is CLASS/image or train|val|test/CLASS/image"
_MOST_NAMED = 20


def _has_folders(folder: Path) -> bool:
    return any(is_folder(entry) for entry in sorted_entries(folder))


def _holds_image(file: Path) -> bool:
    suffix = file.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        require_pydicom(str(file))
    # Only a plain file may be looked into: reading from a pipe would wait for ever.
    return suffix in IMAGE_SUFFIXES or (file.is_file() and is_image(file))
