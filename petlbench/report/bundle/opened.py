"""A bundle as it is opened: unpacked where nobody else looks, within bounds, and checked against its own sums."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from petlbench.core.environment import file_digest
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.core.text import printable
from petlbench.core.user_files import inside, open_file, read_bytes, read_text
from petlbench.data.official.archives import UnpackBounds, unpack

SCHEMA = 1
SUMS, DESCRIPTION, RESULTS, TABLES, MANIFESTS = "SHA256SUMS", "bundle.json", "results", "tables", "manifests"

_BOUNDS = UnpackBounds(size=16 << 30, count=500_000)
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
_NAME = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{16})?")
_HINT = "ask whoever made it for the bundle again; petlbench verify-pack says all that differs"


class Description(BaseModel):
    """What ``bundle.json`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_: int = Field(alias="schema", ge=1, le=SCHEMA)
    name: str
    study: str | None = Field(description="whose runs are in the tables; None for all")
    petlbench: str = Field(description="the version that packed it")
    reports: dict[str, str] = Field(description="reports whose tables it has, each with why it has none, or nothing")
    left_out: list[str] = Field(description="what the folder of results had beside")


@dataclass(frozen=True)
class Bundle:
    """A bundle that was unpacked.

    Args:
        file: The bundle.
        folder: Where its files lie.
    """

    file: Path
    folder: Path

    @property
    def results(self) -> Path:
        """The folder of its results."""
        return self.folder / RESULTS

    def manifest(self, digests: Mapping[str, Any]) -> Path | None:
        """Where the manifest of a run lies, which others of the same split share; None where the run names none.

        Args:
            digests: Those of the run's result.
        """
        parts = [str(digests.get(name) or "")[:16] for name in ("data", "draw")]
        stem = "-".join(filter(None, parts))
        return self.folder / MANIFESTS / f"{stem}.csv" if _NAME.fullmatch(stem) else None

    @cached_property
    def description(self) -> Description:
        """What it says of itself.

        Raises:
            InputError: When it says nothing that can be read.
        """
        try:
            return Description.model_validate_json(read_bytes(self.folder / DESCRIPTION, what="description"))
        except InputError as error:
            raise self._refused(f"it has no {DESCRIPTION} that can be read") from error
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = printable(".".join(map(str, fault["loc"])))
            raise self._refused(f"{DESCRIPTION}: {place}: {printable(fault['msg'])}") from error

    @cached_property
    def sums(self) -> dict[str, str]:
        """The SHA-256 of each file by its path, as the bundle has it.

        Raises:
            InputError: When it has none, or a path leads out of it.
        """
        try:
            lines = read_text(self.folder / SUMS, what="list of sums").splitlines()
        except InputError as error:
            raise self._refused(f"it has no {SUMS} that can be read") from error
        matches = [_LINE.fullmatch(line) for line in lines]
        if None in matches:
            raise self._refused(f"{SUMS}: line {matches.index(None) + 1} is no sum of a file")
        return {match[2]: match[1] for match in matches if match is not None}

    def faults(self) -> Iterator[tuple[str, str]]:
        """What is missing, changed or not listed: each file with what is wrong with it."""
        for path, digest in self.sums.items():
            file = inside(self.folder, path, what=f"a path in {SUMS} of {self.file}")
            if not file.is_file():
                yield path, "is missing"
            elif file_digest(file) != digest:
                yield path, "is not the file that was packed"
        paths = {file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*") if file.is_file()}
        yield from ((path, "was not packed") for path in sorted(paths - {*self.sums, SUMS}))

    def _refused(self, why: str) -> InputError:
        return InputError(
            f"{printable(str(self.file))} is no bundle of petlbench: {why}", hint=_HINT, kind="bad_bundle"
        )


def is_bundle(path: Path | str) -> bool:
    """Whether a path is meant as a bundle: a zip file rather than a folder."""
    return Path(path).suffix.lower() == ".zip" and not Path(path).is_dir()


def open_bundle(file: Path) -> Bundle:
    """The bundle, unpacked for as long as this process lives; whether its files are whole is not looked at.

    Raises:
        InputError: When it cannot be read or unpacked: broken, too large, or with a path that leads out of it.
    """
    try:
        with open_file(file, what="bundle"):
            status = file.stat()
    except InputError as error:
        raise InputError(error.message, hint="petlbench pack writes one", kind=error.kind) from error
    return Bundle(file, Path(_unpacked(file.absolute(), status.st_size, status.st_mtime_ns).name) / "bundle")


def results_folder(path: Path | str) -> Path:
    """The folder of results that a path names: itself, or that of a bundle, every file of which is as it was packed.

    Raises:
        InputError: When a bundle cannot be opened, or a file is missing or another than was packed.
    """
    if not is_bundle(path):
        return Path(path)
    bundle = open_bundle(Path(path))
    if (fault := _first_fault(bundle)) is not None:
        message = f"{printable(str(path))}: {printable(fault[0])} {fault[1]}"
        raise InputError(message, hint=_HINT, kind="changed_bundle")
    return bundle.results


@cache
def _first_fault(bundle: Bundle) -> tuple[str, str] | None:
    return next(bundle.faults(), None)


@cache
def _unpacked(file: Path, size: int, changed: int) -> tempfile.TemporaryDirectory[str]:
    """A folder that goes with this process; a file that has changed is another one."""
    folder = tempfile.TemporaryDirectory(prefix="petlbench-bundle-")
    try:
        unpack(file, Path(folder.name) / "bundle", Progress(), _BOUNDS)
    except InputError as error:
        folder.cleanup()
        raise InputError(error.message, hint=_HINT, kind=error.kind) from error
    return folder
