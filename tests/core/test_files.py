"""Files are whole or absent, and nothing is left of those who were killed while they wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from petlbench.core.files import write_atomically


def fail(file: Path) -> None:
    with write_atomically(file) as temporary:
        temporary.write_text("half")
        raise KeyError


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "table.html"
    with write_atomically(file) as temporary:
        temporary.write_text("whole")
    with pytest.raises(KeyError):
        fail(file)
    assert [path.name for path in tmp_path.iterdir()] == ["table.html"]
    assert file.read_text() == "whole"


def test_what_a_killed_writer_left_of_the_same_file_goes_when_it_is_old(tmp_path: Path) -> None:
    old, new, other, mine = (tmp_path / name for name in (".a.b.7.tmp", ".a.b.8.tmp", ".a.b.c.7.tmp", ".a.b.x.tmp"))
    for path in (old, new, other, mine):
        path.touch()
    for path in (old, other, mine):
        os.utime(path, (0, 0))
    with write_atomically(tmp_path / "a.b") as temporary:
        temporary.touch()
    assert {path.name for path in tmp_path.iterdir()} == {"a.b", new.name, other.name, mine.name}
