"""Unpacking zip archives that others made: nothing outside the folder, nothing but files, no more than is bearable."""

from __future__ import annotations

import io
import re
import shutil
import stat
import zipfile
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING

from petlbench.core.errors import InputError
from petlbench.core.files import existing_part
from petlbench.core.progress import Progress
from petlbench.core.units import readable_size
from petlbench.core.user_files import open_file
from petlbench.data.images.decode import NOT_DATA

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


_BLOCK = 1 << 20
_USE_7Z = "unpack it with 7-Zip (7z x FILE) and give the folder with --from"


@dataclass(frozen=True)
class UnpackBounds:
    """The most that an archive may hold.

    Args:
        size: Bytes of all files together.
        count: Files and folders.
        ratio: Bytes of all files for each byte of the archive.
        free: Bytes up to which the ratio is not asked for: a small text may be of one letter.
    """

    size: int = 256 << 30
    count: int = 2_000_000
    ratio: float = 100.0
    free: int = 64 << 20


_USUAL_BOUNDS = UnpackBounds()


def is_archive(name: str) -> bool:
    """Whether a file name is that of a zip archive, or of the first piece of one that was cut."""
    lower = name.lower()
    return lower.endswith((".zip", ".zip.001"))


def is_piece(name: str) -> bool:
    """Whether a file name is that of a zip archive, or of any piece of one that was cut."""
    return re.search(r"\.zip(\.[0-9]{3,})?$", name.lower()) is not None


def archive_parts(archive: Path) -> tuple[Path, ...]:
    """Return all pieces of an archive in order: its own file, or those of one that was cut (``X.zip.001``, …).

    Raises:
        InputError: When a piece between two others is missing.
    """
    if not archive.name.lower().endswith(".zip.001"):
        return (archive,)
    stem = archive.name[: -len(".001")]
    files = (file for file in archive.parent.iterdir() if file.stem == stem and file.suffix[1:].isdecimal())
    numbered = {int(file.suffix[1:]): file for file in files}
    absent = [number for number in range(1, max(numbered) + 1) if number not in numbered]
    if absent:
        raise InputError(
            f"the archive {archive.with_suffix('')} lacks the piece {stem}.{absent[0]:03d} in {archive.parent}",
            hint="put every piece into that folder",
            kind="missing_part",
        )
    return tuple(numbered[number] for number in sorted(numbered))


class JoinedFile(io.RawIOBase):
    """Files read one after the other, in that order, as if they were one."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._streams: list[IO[bytes]] = []
        try:
            self._streams += (open_file(file, what="archive") for file in files)
        except InputError:
            self.close()
            raise
        ends = list(accumulate(file.stat().st_size for file in files))
        self._starts, self._size = [0, *ends[:-1]], ends[-1]
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError("a position before the start")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read from the piece that holds the position, at most to its end."""
        part = bisect_right(self._starts, self._position) - 1
        self._streams[part].seek(self._position - self._starts[part])
        # A stream ends with its piece: what is read behind the last one is nothing.
        content = self._streams[part].read(memoryview(buffer).nbytes)
        memoryview(buffer).cast("B")[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        """Close every piece."""
        for stream in self._streams:
            stream.close()
        super().close()


def unpack(archive: Path, target: Path, progress: Progress, bounds: UnpackBounds = _USUAL_BOUNDS) -> int:
    """Unpack an archive into a new folder, which is whole or absent.

    Args:
        archive: A zip, or the first piece of one that was cut (``X.zip.001``).
        target: The folder to make; one process at a time makes it.
        progress: Told of every file.
        bounds: The most that the archive may hold.

    Returns:
        How many files were unpacked.

    Raises:
        InputError: When the archive is broken, encrypted or of another kind, a name in it leads out of the folder,
            an entry is a link or a device, or there is more in it than the bounds or the disk allow.
    """
    parts = archive_parts(archive)
    temporary = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _opened(archive, parts) as package:
            entries = _checked(package, archive, sum(part.stat().st_size for part in parts), target, bounds)
            progress.phase(f"unpacking {archive.name}", len(entries))
            temporary.mkdir(parents=True)
            _write(package, archive, entries, temporary, progress)
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(entries)


@contextmanager
def _opened(archive: Path, parts: Sequence[Path]) -> Iterator[zipfile.ZipFile]:
    """Open the archive, and make one kind of error of all that a broken one can bring about."""
    if archive.with_suffix(".z01").exists():
        raise InputError(
            f"the archive {archive} is one of several disks ({archive.with_suffix('.z01').name} is another)",
            hint=_USE_7Z,
            kind="unsupported_archive",
        )
    try:
        with io.BufferedReader(JoinedFile(parts), _BLOCK) as stream, zipfile.ZipFile(stream) as package:
            yield package
    except NotImplementedError as error:
        message = f"the archive {archive} is compressed in a way that cannot be read here: {error}"
        raise InputError(message, hint=_USE_7Z, kind="unsupported_archive") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise InputError(
            f"the archive {archive} is broken or incomplete: {error}",
            hint="get it again; of one that was cut, every piece must be there",
            kind="broken_archive",
        ) from error


def _checked(
    package: zipfile.ZipFile, archive: Path, packed: int, target: Path, bounds: UnpackBounds
) -> list[tuple[zipfile.ZipInfo, str]]:
    """Check every entry before the first byte is written; return the files with their paths below the folder."""
    infos = package.infolist()
    size = sum(info.file_size for info in infos)
    if len(infos) > bounds.count:
        raise _too_much(archive, f"{len(infos):,} files", f"{bounds.count:,}")
    if size > bounds.size:
        raise _too_much(archive, readable_size(size), readable_size(bounds.size))
    if size > bounds.free and size > bounds.ratio * packed:
        raise _too_much(archive, f"{size / packed:.0f} times its own size", f"{bounds.ratio:g} times")
    free = shutil.disk_usage(existing_part(target)).free
    if size > free:
        raise InputError(
            f"{archive} needs {readable_size(size)} unpacked; {target} has {readable_size(free)} left",
            hint="make room, or name another place with --data-root",
            kind="disk_full",
        )
    files = [(info, _inside(info, archive)) for info in infos if not info.is_dir()]
    files = [(info, path) for info, path in files if not NOT_DATA & set(PurePosixPath(path).parts)]
    twice = [path for path, count in Counter(path for _, path in files).items() if count > 1]
    if twice:
        raise _refused(archive, twice[0], "stands in it twice")
    return files


def _inside(info: zipfile.ZipInfo, archive: Path) -> str:
    """Return an entry's path below the folder, or refuse what is no plain file inside it."""
    # Archives made on Windows may have backslashes, which Python leaves where its own system has none.
    path = PurePosixPath(info.filename.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(path).drive or ".." in path.parts or not path.parts:
        raise _refused(archive, info.filename, "would lie outside the folder that it is unpacked to")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _refused(archive, info.filename, f"is a {'link' if stat.S_ISLNK(kind) else 'device, not a file'}")
    if info.flag_bits & 1:
        raise InputError(f"the archive {archive} is encrypted", hint=_USE_7Z, kind="unsupported_archive")
    return path.as_posix()


def _write(
    package: zipfile.ZipFile,
    archive: Path,
    entries: Sequence[tuple[zipfile.ZipInfo, str]],
    folder: Path,
    progress: Progress,
) -> None:
    for info, path in entries:
        file = folder / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # An entry gives no more bytes than it declares, against which the bounds were checked.
            with package.open(info) as source, file.open("xb") as target:
                shutil.copyfileobj(source, target, _BLOCK)
        except (FileExistsError, NotADirectoryError) as error:
            raise _refused(archive, info.filename, "is a file and a folder at once") from error
        progress.advance()


def _too_much(archive: Path, content: str, bound: str) -> InputError:
    return InputError(
        f"the archive {archive} holds {content}; no more than {bound} is unpacked",
        hint="if the archive is what you expect, unpack it yourself and give the folder with --from",
        kind="archive_too_large",
    )


def _refused(archive: Path, name: str, why: str) -> InputError:
    return InputError(
        f"the archive {archive} is not unpacked: its entry {name!a} {why}",
        hint="get the archive from the official page again",
        kind="unsafe_archive",
    )
