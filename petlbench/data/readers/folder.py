"""The reader for a folder of class folders, with or without train, val and test folders above them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from petlbench.core.errors import InputError
from petlbench.data.images.decode import IMAGE_SUFFIXES, is_image
from petlbench.data.images.dicom import DICOM_SUFFIXES, require_pydicom
from petlbench.data.images.files import files_below, sorted_entries
from petlbench.data.readers.base import ImageFiles, ReaderCard, Source, choose_classes
from petlbench.data.record import SPLIT_ALIASES, Record, Split

__all__ = ["FolderReader"]


class FolderReader(ImageFiles):
    """Reads ``CLASS/…/image`` or ``train|val|test/CLASS/…/image`` below a folder.

    A file is an image where its suffix says so or, with any other suffix or none, where its content does.

    Raises:
        InputError: When the folder's layout is not one of the two, a class folder is empty, or there are fewer
            than two classes; or when there are DICOM files and no pydicom.
    """

    card = ReaderCard(name="folder", title="a folder of class folders", rank=-1)

    def __init__(self, source: Source) -> None:
        self.root = source.folder()
        self._ignored: list[str] = []
        images = sorted(self._find(), key=lambda image: image[0])
        self.classes = choose_classes((name for _, _, name in images), source.classes, f"the folder {self.root}")
        self.records = tuple(
            Record(path, path, source.labels.parse(name, self.classes), split=split) for path, split, name in images
        )
        if self._ignored:
            count, names = len(self._ignored), sorted(self._ignored)[:_MOST_NAMED]
            more = f" and {count - len(names)} more" if count > len(names) else ""
            what = "1 file that is no image is" if count == 1 else f"{count} files that are no images are"
            self.notes = (f"{what} left out: {', '.join(names)}{more}",)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether it is a folder: any, so that every other reader comes first."""
        return path.is_dir()

    def _find(self) -> Iterator[tuple[str, Split | None, str]]:
        """Yield (path relative to the root, split, class name) of every image."""
        top = self._subfolders(self.root)
        splits = _split_folders(top, self.root)
        if not splits:
            yield from self._classes(top, None)
        for split, folder in splits.items():
            inside = self._subfolders(folder)
            if not inside:
                raise InputError(f"the folder {folder} has no class folders", hint=_LAYOUT_HINT, kind="too_few_classes")
            yield from self._classes(inside, split)

    def _classes(self, folders: Sequence[Path], split: Split | None) -> Iterator[tuple[str, Split | None, str]]:
        for folder in folders:
            paths = self._images(folder)
            if not paths:
                raise InputError(
                    f"the class '{folder.name}' is empty: {folder} holds no image",
                    hint=f"add images ({' '.join(sorted(IMAGE_SUFFIXES))}) or remove the folder",
                    kind="empty_class",
                )
            for path in paths:
                yield path, split, folder.name

    def _images(self, folder: Path) -> list[str]:
        """Return the paths of the images below a folder, and put what is none aside."""
        images: list[str] = []
        for path in files_below(folder, f"{folder.relative_to(self.root).as_posix()}/"):
            (images if _holds_image(self.root / path) else self._ignored).append(path)
        return images

    def _subfolders(self, folder: Path) -> list[Path]:
        entries = sorted_entries(folder)
        self._ignored += [Path(entry.path).relative_to(self.root).as_posix() for entry in entries if not entry.is_dir()]
        return [Path(entry.path) for entry in entries if entry.is_dir()]


_LAYOUT_HINT = "the layout is CLASS/image or train|val|test/CLASS/image"
_MOST_NAMED = 20


def _holds_image(file: Path) -> bool:
    suffix = file.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        require_pydicom(str(file))
    # Only a plain file may be looked into: reading from a pipe would wait for ever.
    return suffix in IMAGE_SUFFIXES or (file.is_file() and is_image(file))


def _split_folders(top: Sequence[Path], root: Path) -> dict[Split, Path]:
    """Recognise train, val and test folders; an empty mapping where none of the folders is one."""
    splits: dict[Split, Path] = {}
    others: list[str] = []
    for folder in top:
        split = SPLIT_ALIASES.get(folder.name.lower())
        if split is None:
            others.append(folder.name)
        elif split in splits:
            raise InputError(
                f"the folder {root} has two folders for '{split}': {splits[split].name} and {folder.name}",
                hint="keep one of the two",
                kind="bad_layout",
            )
        else:
            splits[split] = folder
    if splits and others:
        raise InputError(
            f"the folder {root} mixes split folders ({', '.join(f.name for f in splits.values())}) with "
            f"other folders ({', '.join(others)})",
            hint=_LAYOUT_HINT,
            kind="bad_layout",
        )
    return splits
