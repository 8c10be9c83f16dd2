"""Lists of names and labels: lines are divided from their end, and names may hold blanks."""

from __future__ import annotations

from pathlib import Path

import pytest

from petlbench.core.errors import InputError
from petlbench.data.readers.list_file import read_list


def cells(tmp_path: Path, text: str, *how: object) -> list[tuple[int, list[str]]]:
    file = tmp_path / "list.txt"
    file.write_bytes(text.encode())
    return list(read_list(file, *how))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "how", "expected"),
    [
        ("images/train800/000000.jpg 12\n", (), ["images/train800/000000.jpg", "12"]),
        ("2019-05-28 17_55_39-lv1p0026.png 0\n", (), ["2019-05-28 17_55_39-lv1p0026.png", "0"]),
        ("a  b.png \t 3 \r\n", (), ["a  b.png", "3"]),
        ("a b.png 0 1 0 1", (5,), ["a b.png", "0", "1", "0", "1"]),
        ("a b,c.png 0,1,0\n", (4, " ,"), ["a b,c.png", "0", "1", "0"]),
        ("a.png 0 , 1\n", (3, ", "), ["a.png", "0", "1"]),
        ("a,b.png 1\n", (), ["a,b.png", "1"]),
        ("only.png\n", (), ["only.png"]),
        ("a b.png\n", (1,), ["a b.png"]),
        ("image label more\n", (0,), ["image", "label", "more"]),
        ('\ufeff"a".png 1\n', (), ['"a".png', "1"]),
    ],
)
def test_the_last_cells_are_divided_off(
    tmp_path: Path, text: str, how: tuple[object, ...], expected: list[str]
) -> None:
    assert cells(tmp_path, text, *how) == [(1, expected)]


def test_empty_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    assert cells(tmp_path, "\n  \na 1\n\nb 2") == [(3, ["a", "1"]), (5, ["b", "2"])]


def test_what_is_no_text_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a \xff 1\n")
    with pytest.raises(InputError, match=r"list\.txt"):
        list(read_list(tmp_path / "list.txt"))
