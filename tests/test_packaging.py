"""What a wheel holds: every package of the checkout."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_of_the_checkout_is_in_the_wheel() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        named = tomllib.load(file)["tool"]["setuptools"]["packages"]
    folders = [file.parent for file in (ROOT / "petlbench").rglob("__init__.py")]
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    # Data folders have no __init__.py.
    assert found <= set(named)
    for package in set(named) - found:
        path = package.replace(".", "/")  # the catalogues lie at the top, other data where the package says
        assert (ROOT / path).is_dir() or (ROOT / path.removeprefix("petlbench/")).is_dir(), package


def test_every_folder_of_cards_is_in_the_wheel() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        setuptools = tomllib.load(file)["tool"]["setuptools"]
    for folder in {file.parent for file in (ROOT / "datasets").rglob("*.toml")}:
        package = ".".join(("petlbench", *folder.relative_to(ROOT).parts))
        assert package in setuptools["packages"]
        assert setuptools["package-dir"][package] == folder.relative_to(ROOT).as_posix()
        assert "*.toml" in setuptools["package-data"][package]
