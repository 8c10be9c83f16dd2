"""Progress bars as a terminal shows them."""

from __future__ import annotations

import time

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
