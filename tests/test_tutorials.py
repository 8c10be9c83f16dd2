"""The tutorials: every command as it stands on the page, in one folder, in the order of the page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from petlbench.cli.app import run_command

TUTORIALS = Path(__file__).parents[1] / "docs/tutorials"


def steps(page: str) -> Iterator[tuple[str, str]]:
    """The blocks of a page that are run: Python, and commands of the shell, each on one line."""
    for language, block in re.findall(
        r"^```(python|sh)\n(.*?)^```", (TUTORIALS / page).read_text(), re.DOTALL | re.MULTILINE
    ):
        yield from [(language, block)] if language == "python" else [("sh", line) for line in block.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "files"), [("own_data.md", ["tables/table1.html", "model/README.md"]), ("cluster.md", [])]
)
def test_every_step_of_a_tutorial_runs(
    page: str, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for language, step in steps(page):
        if language == "python":
            exec(compile(step, page, "exec"), {})
        else:
            program, *words = shlex.split(step.partition(" > ")[0])
            assert program == "petlbench"
            assert run_command([*words, *(["--tracking-uri", "none"] if words[0] == "bench" else [])]) == 0, step
    assert all((tmp_path / name).exists() for name in files)
