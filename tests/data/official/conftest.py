"""The made-up files of official releases, made once for all of their tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.official_files import make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the made-up files of a release: made once, to be read only."""
    top = tmp_path_factory.mktemp("official")
    return lambda name: top / name if (top / name).is_dir() else make(name, top / name, images_per_class=4)


@pytest.fixture
def copied(made: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Give a copy of the made-up files that may be changed."""
    return lambda name: Path(shutil.copytree(made(name), tmp_path / "files"))
