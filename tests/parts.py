"""The parts that ``make install`` does not bring: what a test needs of them, and whether this machine has it."""

from __future__ import annotations

import os
import shutil
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

REQUIRE = "PETLBENCH_REQUIRE"
"""The variable that names the parts, with commas between them, whose absence is a failure and no reason to skip."""


@dataclass(frozen=True)
class Part:
    """Modules, programs and libraries that come together, and how they are had."""

    install: str
    modules: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """What of it is not there."""
        modules = [name for name in self.modules if find_spec(name) is None]
        programs = [name for name in self.programs if find_program(name) is None]
        return modules + programs + [name for name in self.libraries if find_library(name) is None]


PARTS = {
    "ray": Part("make install-parts", modules=("ray",)),
    "postgres": Part(
        "make install-parts, apt-get install postgresql", ("psycopg",), ("initdb", "postgres", "pg_isready")
    ),
    "chromium": Part("apt-get install chromium", ("playwright",), ("chromium",)),
    "latex": Part("apt-get install texlive-latex-recommended lmodern", programs=("pdflatex",)),
    "medmnist": Part("make install-parts", modules=("medmnist",)),
    "medmnistc": Part(
        "make install-parts, apt-get install libmagickwand-6.q16-6", ("medmnistc",), libraries=("MagickWand-6.Q16",)
    ),
    "docs": Part("make docs", modules=("mkdocs", "material", "mkdocstrings")),
    "pdftotext": Part("apt-get install poppler-utils", programs=("pdftotext",)),
}


def find_program(name: str) -> str | None:
    """The path of a program: on the search path, or where Debian keeps those of PostgreSQL; None where it is not."""
    folders = [os.environ.get("PATH", os.defpath), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    return shutil.which(name, path=os.pathsep.join(folders))


def required() -> set[str]:
    """The parts that have to be there.

    Raises:
        pytest.UsageError: When the variable names what is no part.
    """
    names = {name.strip() for name in os.environ.get(REQUIRE, "").split(",")} - {""}
    if unknown := sorted(names - set(PARTS)):
        raise pytest.UsageError(f"{REQUIRE} names {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    return names


def need(name: str) -> None:
    """Skip the test where a part is not there; where it has to be, fail."""
    part = PARTS[name]
    if missing := part.missing():
        reason = f"{name} is not here ({', '.join(missing)}): {part.install}"
        if name in required():
            pytest.fail(f"{reason}; {REQUIRE} asks for it", pytrace=False)
        pytest.skip(reason)
