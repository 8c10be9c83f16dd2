"""A session of pytest within this one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

OPTIONS = ["-p", "petlbench.testing.plugin", "-p", "no:cacheprovider", "-p", "no:xdist", "--import-mode=importlib"]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run a session in the test's folder, in this process, since torch takes long to import; status and output."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        try:
            status = pytest.main([*OPTIONS, "-s", "-rfE", "--rootdir", str(tmp_path), *arguments])
        finally:
            _forget_modules(tmp_path)
        captured = capsys.readouterr()
        return int(status), captured.out + captured.err

    return run


def _forget_modules(folder: Path) -> None:
    """Let the next session import a file of the same name: pytest takes what is imported under its name already."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(f"{folder}/"):
            del sys.modules[name]
