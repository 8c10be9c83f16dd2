"""Progress bars as a terminal shows them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from petlbench.core.progress_bars import ShownProgress


def test_a_bar_says_how_many_how_fast_and_how_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with ShownProgress() as progress:
        progress.phase("preloading", 100)
        for _ in range(3):
            progress.advance(10)
            time.sleep(0.02)
    shown = capsys.readouterr().err
    assert "preloading" in shown
    assert "30/100" in shown
    assert "/s" in shown


def test_nothing_is_drawn_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with ShownProgress() as progress:
        progress.phase("preloading", 100)
        progress.advance()
        progress.say("one line")
    assert capsys.readouterr().err == "one line\n"


def test_a_reader_who_leaves_ends_nothing(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from petlbench.core.progress_bars import ShownProgress\n"
        "with ShownProgress() as progress:\n"
        "    for _ in range(200): progress.say('x' * 1000)\n"
        "print('x' * 100_000, file=sys.stderr)\n"
        "Path(sys.argv[1]).touch()"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "end")], stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(60) == 0
    assert (tmp_path / "end").exists()
