"""Reading files that petlbench did not write itself: regular ones only, of bounded size, that keep nobody waiting."""

from __future__ import annotations

import errno
import json
import os
import posixpath
import stat
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.core.units import readable_size

TEXT_LIMIT = 256 << 20
"""The most bytes of a file that is read as text; results, cards and tables are far smaller."""

# Characters of a path that a message shows.
_SHOWN = 80
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

Opened = dict[str, tuple[int, int]]
"""Size in bytes and time of the last change in nanoseconds, by absolute path."""

_RECORDS: list[Opened] = []


def stamp(file: str | Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; raises an OSError where there is no file."""
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def open_file(file: Path, *, what: str = "file", limit: int | None = None) -> BinaryIO:
    """The opened file, for reading bytes; whoever calls closes it.

    Pipes and devices, behind links too, would keep a reader waiting or never end: they are not opened.

    Args:
        file: The file.
        what: What it is to be, for the message, for example ``"image"``.
        limit: The most bytes that it may hold; ``None`` for no limit.

    Raises:
        InputError: Of kind ``missing_file``, ``not_a_file``, ``too_large`` or ``unreadable_file``.
    """
    name = f"the {what} {printable(str(file))}"
    try:
        _check_regular(name, os.stat(file).st_mode)
        # A pipe that takes the file's place in between is opened without waiting, and then refused.
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{name} does not exist", kind="missing_file") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{name} cannot be read: {reason}", kind="unreadable_file") from error
    opened = os.fdopen(handle, "rb")
    try:
        status = os.fstat(handle)
        _check_regular(name, status.st_mode)
        _check_size(name, status.st_size, limit)
    except InputError:
        opened.close()
        raise
    _note(file, status)
    return opened


def note(file: Path) -> None:
    """Record a file that is there, and that something else than `open_file` is about to open."""
    _note(file, file.stat())


def _note(file: Path, status: os.stat_result) -> None:
    for record in _RECORDS:
        record.setdefault(os.path.abspath(file), (status.st_size, status.st_mtime_ns))


@contextmanager
def recorded() -> Iterator[Opened]:
    """Every file that any thread opens, or notes, while the block runs, with what it was like at first."""
    record: Opened = {}
    _RECORDS.append(record)
    try:
        yield record
    finally:
        _RECORDS[:] = [each for each in _RECORDS if each is not record]  # two of them may be equal


def read_bytes(file: Path, *, what: str = "file", limit: int | None = TEXT_LIMIT) -> bytes:
    """The file's bytes; raises as `open_file` does."""
    with open_file(file, what=what, limit=limit) as opened:
        try:
            # Files of the system call themselves empty: what they give is bounded, too.
            content = opened.read() if limit is None else opened.read(limit + 1)
        except OSError as error:
            message = f"the {what} {printable(str(file))} cannot be read: {error.strerror}"
            raise InputError(message, kind="unreadable_file") from error
    content = content or b""
    _check_size(f"the {what} {printable(str(file))}", len(content), limit)
    return content


def read_text(file: Path, *, what: str = "file", limit: int = TEXT_LIMIT) -> str:
    """The file's text, UTF-8 with or without a mark; raises as `open_file` does, or of kind ``damaged_file``."""
    try:
        return read_bytes(file, what=what, limit=limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _damaged(file, what, f"no UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error


def read_json(file: Path, *, what: str = "file", limit: int = TEXT_LIMIT) -> dict[str, Any]:
    """The file's JSON object; raises as `open_file` does, or of kind ``damaged_file`` when it is none."""
    try:
        text = read_text(file, what=what, limit=limit)
        document = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(file, what, f"no JSON: {error}") from error
    if not isinstance(document, dict):
        raise _damaged(file, what, f"no JSON object but {_JSON_NAMES[type(document)]}")
    return document


def _no_constant(name: str) -> None:
    """Refuse what Python reads as JSON and JSON has not: what was read so could not be written again."""
    raise ValueError(f"it has no {name}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that has a key twice: which of the two values counts, no reader says."""
    document = dict(pairs)
    if len(document) < len(pairs):
        doubled = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key '{doubled[:_SHOWN]}' stands in it twice")
    return document


def read_toml(file: Path, *, what: str = "file", limit: int = TEXT_LIMIT) -> dict[str, Any]:
    """The file's TOML table; raises as `open_file` does, or of kind ``damaged_file`` when it is none."""
    try:
        return tomllib.loads(read_text(file, what=what, limit=limit))
    except (ValueError, RecursionError) as error:
        raise _damaged(file, what, f"no TOML: {error}") from error


def inside(root: Path, part: str, *, what: str) -> Path:
    """The path below the root that a file's text names.

    Every text out of a file that becomes a path goes through here. Links are followed where they lead: they are the
    user's own, and no text makes them.

    Args:
        root: The folder that the path must not leave.
        part: The text: a relative path with ``/`` between its parts.
        what: Where the text stands, for the message, for example ``"[[files]].name of the card eyes.toml"``.

    Raises:
        InputError: When the text is empty, absolute or leads out of the root (kind ``path_outside``).
    """
    path = posixpath.normpath(part) if part else ""
    native = Path(path)
    if not path.strip() or "\0" in path or native.is_absolute() or native.drive or path.split("/")[0] in ("..", "~"):
        raise InputError(
            f"{what} is '{printable(part)}', which is no path inside {printable(str(root))}",
            hint="give a relative path that does not leave the folder",
            kind="path_outside",
        )
    return root / native


def user_path(text: str | Path, *, what: str) -> Path:
    """The path that a user wrote, which need not be there, with ``~`` as a home folder.

    Args:
        text: The path.
        what: Where it stands, for the message, for example ``"--output"``.

    Raises:
        InputError: When nothing can be there: it is empty, too long, an address, a loop of links, or the home of nobody
            (kind ``bad_path``).
    """
    written = str(text)
    reason = None if written.strip() else "nothing is named"
    if "://" in written:
        reason = "it is an address, from which nothing is fetched"
    path = Path(written)
    try:
        path = path.expanduser()
        path.stat()
    except RuntimeError:
        reason = "there is no such user"
    except ValueError as error:
        reason = str(error)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
            reason = error.strerror
    if reason is not None:
        shortened = written if len(written) <= _SHOWN else f"{written[:_SHOWN]}…"
        message = f"{what} '{printable(shortened)}' is no path: {reason}"
        raise InputError(message, hint="give another path", kind="bad_path")
    return path


_JSON_NAMES = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a truth value"}
_JSON_NAMES |= {type(None): "null"}


def _check_regular(name: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((kind for test, kind in _KINDS if test(mode)), "no regular file")
        raise InputError(f"{name} is {kind}, not a file", kind="not_a_file")


def _check_size(name: str, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        message = f"{name} holds more than {readable_size(limit)}, the most that is read of such a file"
        raise InputError(message, kind="too_large")


def _damaged(file: Path, what: str, reason: str) -> InputError:
    return InputError(f"the {what} {printable(str(file))} is damaged: {printable(reason)}", kind="damaged_file")
