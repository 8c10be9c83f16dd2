"""Bringing the official files of a dataset together: found on the disk, downloaded, unpacked."""

from __future__ import annotations

import filecmp
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.core.progress import Progress
from petlbench.core.text import without_password
from petlbench.core.user_files import read_json
from petlbench.data.card import DatasetCard, OfficialFile
from petlbench.data.official.archives import archive_parts, is_archive, is_piece, unpack
from petlbench.data.official.download import download

DOWNLOADS = "downloads"
FILES = "files"
_STATE = ".unpacked.json"
# What archives of one release bring along, each in its own words.
_LEAFLETS = frozenset(("attribution", "license", "licence", "readme"))


@dataclass(frozen=True)
class Sources:
    """Where the official files of a dataset may come from, and where they go.

    Args:
        name: The dataset's name.
        card: Its card.
        folder: The dataset's folder below the data root.
        user_folder: The folder that the user named, if any.
        mirror: Address of a folder that holds the same files as the official addresses, if any.
        progress: Told what goes on.
    """

    name: str
    card: DatasetCard
    folder: Path
    user_folder: Path | None
    mirror: str | None
    progress: Progress

    @property
    def place(self) -> Path:
        """The folder in which files that are fetched by hand are looked for."""
        return self.user_folder if self.user_folder is not None else self.folder / DOWNLOADS

    def held(self, file: OfficialFile) -> Path | None:
        """Return an official file that is on the disk already."""
        path = self.place / file.name
        return path if path.is_file() else None

    def address(self, file: OfficialFile) -> str:
        """Return where a file can be downloaded; empty where it cannot."""
        if self.mirror is None or not file.url:
            return file.url
        return f"{self.mirror.rstrip('/')}/{quote(file.name)}"


def gather(sources: Sources, readable: Callable[[Path], bool], *, anew: bool = False) -> Path:
    """Make sure that every official file lies, unpacked, below one folder.

    Args:
        sources: Where the files may come from.
        readable: Says whether a folder holds the unpacked release.
        anew: Whether archives that were unpacked before are unpacked again, where they are at hand.

    Returns:
        That folder: the user's where it holds the unpacked files already, else one below the dataset's folder.

    Raises:
        InputError: When a file is missing and cannot be downloaded, is not the official one, or cannot be unpacked.
    """
    if sources.user_folder is not None and not sources.user_folder.is_dir():
        raise InputError(
            f"--from {sources.user_folder}: there is no such folder",
            hint="give the folder that holds the official files, as archives or unpacked",
            kind="no_source",
        )
    place, official = sources.place, sources.card.files
    if sources.user_folder is not None and not any(sources.held(file) for file in official if is_piece(file.name)):
        others = sorted(file.name for file in place.iterdir() if is_archive(file.name))
        if others and not readable(place):
            names = ", ".join(file.name for file in official if is_piece(file.name)) or "no archive"
            raise InputError(
                f"{place} holds {', '.join(others)}; the card of '{sources.name}' knows {names}",
                hint="if it is the official archive, rename it so, or unpack it there and call again",
                kind="unknown_archive",
            )
        return place.resolve()
    if place.is_dir() and readable(place):
        return place.resolve()
    unpacked = _Unpacked(sources.folder / FILES)
    at_hand = all(sources.held(file) for file in official)
    if sources.user_folder is None and unpacked.holds(official) and not (anew and at_hand):
        return unpacked.folder
    files = fetch(sources, official, sources.folder / DOWNLOADS)
    if anew:
        unpacked.clear()
    unpacked.add(files, sources.progress)
    return unpacked.folder


def fetch(sources: Sources, files: Sequence[OfficialFile], folder: Path) -> list[Path]:
    """Return official files, found on the disk or downloaded into a folder, which is made.

    Size and checksum of each are compared where the card knows them.

    Raises:
        InputError: When a file has no address and must be fetched by hand, cannot be downloaded, or is another one.
    """
    by_hand = [file.name for file in files if sources.held(file) is None and not sources.address(file)]
    if by_hand or not files:
        raise _by_hand(sources, by_hand)
    paths: list[Path] = []
    for file in files:
        path, address = sources.held(file), sources.address(file)
        if path is not None and (sources.user_folder is not None or not address):
            require_official(path, file, sources.progress)
        else:
            path = folder / file.name
            folder.mkdir(parents=True, exist_ok=True)
            download(address, path, sources.progress, checksum=file.checksum, size=file.bytes)
        paths.append(path)
    return paths


def place_files(sources: Sources, files: Sequence[OfficialFile]) -> list[Path]:
    """Return official files that are read as they are, brought into the dataset's folder.

    Raises:
        InputError: As for `fetch`.
    """
    targets: list[Path] = []
    for path in fetch(sources, files, sources.folder):
        target = sources.folder / path.name
        if path != target:
            with write_atomically(target) as temporary:
                shutil.copyfile(path, temporary)
        targets.append(target)
    return targets


class _Unpacked:
    """The folder into which all archives of a release are unpacked, as a person would: one over the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state = folder / _STATE

    def holds(self, official: Sequence[OfficialFile]) -> bool:
        """Whether every archive has been unpacked to its end, and all that is none lies beside it."""
        archives = {file.name for file in official if is_archive(file.name)}
        others = [self.folder / file.name for file in official if not is_piece(file.name)]
        return bool(archives) and archives <= self._sizes().keys() and all(file.is_file() for file in others)

    def clear(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, files: Sequence[Path], progress: Progress) -> None:
        """Unpack archives that are not unpacked yet, and copy what is none."""
        firsts = [file for file in files if is_archive(file.name)]
        sizes = {file.name: [part.stat().st_size for part in archive_parts(file)] for file in firsts}
        unpacked = self._sizes()
        if any(sizes.get(name) != old for name, old in unpacked.items()):
            self.clear()  # an archive has changed: what it held before must not stay
            unpacked = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in firsts:
            if file.name not in unpacked:
                fresh = self.folder.with_name(f".{self.folder.name}.arrived")
                shutil.rmtree(fresh, ignore_errors=True)
                unpack(file, fresh, progress)
                _merge(fresh, self.folder, file)
                unpacked = {**unpacked, file.name: sizes[file.name]}
                with write_atomically(self._state) as temporary:
                    temporary.write_text(json.dumps(unpacked), encoding="utf-8")
        for file in files:
            if not is_piece(file.name):
                with write_atomically(self.folder / file.name) as temporary:
                    shutil.copyfile(file, temporary)

    def _sizes(self) -> Mapping[str, list[int]]:
        """The archives that are unpacked, with the sizes of their pieces in bytes."""
        with suppress(InputError):  # what cannot be read is unpacked again
            return read_json(self._state)
        return {}


def _merge(fresh: Path, folder: Path, archive: Path) -> None:
    """Move what was unpacked to where the rest is."""
    for path in sorted(fresh.rglob("*")):
        if path.is_dir():
            continue
        target = folder / path.relative_to(fresh)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.stem.lower() not in _LEAFLETS and not filecmp.cmp(path, target, shallow=False):
            raise InputError(
                f"the archive {archive} has another {target.relative_to(folder)} than {target}, which is there already",
                hint=f"remove {folder}, and give the archives of one release only",
                kind="mixed_archives",
            )
        path.replace(target)
    shutil.rmtree(fresh)


def require_official(path: Path, file: OfficialFile, progress: Progress) -> None:
    """Compare a file's size and checksum, which takes time, with what the card knows of it.

    Raises:
        InputError: When one is another.
    """
    size, checksum = path.stat().st_size, file.checksum
    if file.bytes is not None and size != file.bytes:
        raise _other_file(path, f"{size} bytes", f"{file.bytes} bytes", file)
    if checksum is None:
        return
    kind, _, expected = checksum.partition(":")
    progress.phase(f"checksum of {path.name}", 1)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, kind).hexdigest()
    progress.advance()
    if digest != expected:
        raise _other_file(path, f"the {kind} checksum {digest}", expected, file)


def _other_file(path: Path, actual: str, expected: str, file: OfficialFile) -> InputError:
    source = f" from {without_password(file.url)}" if file.url else ""
    return InputError(
        f"{path} is not the official file: it has {actual}, not {expected}",
        hint=f"get it again{source}; if the official file has changed, so must the card",
        kind="wrong_checksum",
    )


def _by_hand(sources: Sources, names: Sequence[str]) -> InputError:
    """Build the error that says, step by step, how files behind a login or a form are got."""
    card, place = sources.card, sources.place
    files = ", ".join(names) or "the files of the official release"
    steps = [
        *(card.steps or [f"open {card.home or 'the official page'} and get {files}"]),
        f"put {files} into {place.resolve()}, or into any other folder that you then name with --from",
        f"petlbench data prepare {sources.name}" + (f" --from {place}" if sources.user_folder is not None else ""),
    ]
    numbered = "".join(f"\n    {number}. {step}" for number, step in enumerate(steps, start=1))
    return InputError(
        f"official files of '{sources.name}' must be fetched by hand: {files} not found in {place}",
        hint=f"{card.home} (licence: {card.licence}){numbered}",
        kind="fetch_by_hand",
    )
