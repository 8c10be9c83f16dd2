"""Files are whole or absent, and what killed processes left of them goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from petlbench.core.files import write_atomically


def test_what_a_killed_process_left_goes_with_the_next_writing_and_nothing_else_does(tmp_path: Path) -> None:
    old, young, other = (
        tmp_path / f".{name}.tmp" for name in ("table1.html.4711", "table1.html.4712", "table2.html.1")
    )
    for file in (old, young, other):
        file.write_text("half")
    for file in (old, other):
        os.utime(file, times=(time.time() - 3600, time.time() - 3600))
    with write_atomically(tmp_path / "table1.html") as temporary:
        temporary.write_text("whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([young.name, other.name, "table1.html"])


def test_a_file_keeps_what_it_held_when_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("before")
    with pytest.raises(TypeError), write_atomically(tmp_path / "a[1].txt") as temporary:
        temporary.write_text("half" + 1)  # type: ignore[operator]
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a[1].txt", "before")]
