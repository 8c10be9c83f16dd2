"""What a release would hold: the same version everywhere, every package and catalogue in the wheel, nothing private."""

from __future__ import annotations

import re
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PRIVATE = re.compile(rb"/home/\w|/Users/\w|-----BEGIN [A-Z ]*PRIVATE KEY")
_TEXTS = (".py", ".pyi", ".toml", ".md", ".js", ".css", ".json")


def main(folder: str) -> int:
    """Say what is wrong with the distributions of a folder; 1 where anything is."""
    faults = list(check(Path(folder)))
    print(*(faults or ["the distributions are whole"]), sep="\n")
    return 1 if faults else 0


def check(folder: Path) -> Iterator[str]:
    """What is wrong with the distributions of a folder."""
    wheels, sources = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sources) != 1:
        yield f"{folder} holds {len(wheels)} wheels and {len(sources)} source distributions, not one of each"
        return
    version = _version("petlbench/__init__.py", r'__version__ = "([^"]+)"')
    if _version("CITATION.cff", r"^version: (\S+)") != version:
        yield f"CITATION.cff is not of version {version}"
    for file in (*wheels, *sources):
        if file.name.split("-")[1].removesuffix(".tar.gz") != version:
            yield f"{file.name} is not of version {version}"
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = wheel.namelist()
        yield from _absent({name.rpartition("/")[0] for name in names}, names)
        yield from _private((name, wheel.read(name)) for name in names if name.endswith(_TEXTS))
    with tarfile.open(sources[0]) as source:
        inside = {name.partition("/")[2] for name in source.getnames()}
        needed = {"LICENSE", "README.md", "pyproject.toml", "methods/lora.py", "datasets/isic2018.toml"}
        yield from (f"the source distribution lacks {name}" for name in sorted(needed - inside))


def _absent(folders: set[str], names: list[str]) -> Iterator[str]:
    """Packages and files of the checkout that the wheel lacks."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = tomllib.load(file)["tool"]["setuptools"]["packages"]
    yield from (f"the wheel lacks {name}" for name in packages if name.replace(".", "/") not in folders)
    for catalogue, ending in (("methods", "py"), ("datasets", "toml"), ("sweeps", "toml"), ("reports", "toml")):
        files = {f"petlbench/{path.relative_to(ROOT)}" for path in (ROOT / catalogue).rglob(f"*.{ending}")}
        yield from (f"the wheel lacks {name}" for name in sorted(files - set(names)))


def _private(files: Iterator[tuple[str, bytes]]) -> Iterator[str]:
    for name, content in files:
        if (match := _PRIVATE.search(content)) is not None:
            yield f"the wheel's {name} tells of a machine: {match[0].decode()}"


def _version(file: str, pattern: str) -> str:
    match = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else "none"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
