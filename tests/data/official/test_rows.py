"""Tables of datasets: what is read from text and Excel files, and how each bad one is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from petlbench.core.errors import InputError
from petlbench.data.official.rows import read_header, read_rows
from tests.data.drawn_files import write_excel


def text(folder: Path, content: str, encoding: str = "utf-8") -> Path:
    file = folder / "table.csv"
    file.write_bytes(content.encode(encoding))
    return file


def refused(file: Path, **how: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read_rows(file, **how)
    assert str(file) in caught.value.message
    return caught.value


def test_rows_with_their_lines(tmp_path: Path) -> None:
    rows = read_rows(text(tmp_path, 'image,label\n\n a.png , 1\n"b,c.png",2\n'))
    assert [(row.line, dict(row.cells)) for row in rows] == [
        (3, {"image": "a.png", "label": "1"}),
        (4, {"image": "b,c.png", "label": "2"}),
    ]
    assert rows[1].place == f"{tmp_path / 'table.csv'}, line 4"


@pytest.mark.parametrize("header", ["", "left;right\n"])
def test_columns_of_a_file_that_may_have_no_header(tmp_path: Path, header: str) -> None:
    rows = read_rows(text(tmp_path, header + "a.png;b.png\n"), columns=("left", "right"), separator=";")
    assert [dict(row.cells) for row in rows] == [{"left": "a.png", "right": "b.png"}]


def test_several_blanks_are_one(tmp_path: Path) -> None:
    rows = read_rows(text(tmp_path, "a.jpg  2 \r\nb.jpg 0\r\n"), columns=("image", "grade"), separator=" ")
    assert [tuple(row.cells.values()) for row in rows] == [("a.jpg", "2"), ("b.jpg", "0")]


def test_excel_like_text(tmp_path: Path) -> None:
    file = tmp_path / "table.xlsx"
    write_excel(
        file, "Data", [("ID1", "Age", "subtype"), ("D1-1", 40.0, None), (None, None, None), ("D1-2", 41.5, "x")]
    )
    rows = read_rows(file, sheet="Data", required=("ID1", "subtype"))
    assert [(row.line, tuple(row.cells.values())) for row in rows] == [
        (2, ("D1-1", "40", "")),
        (4, ("D1-2", "41.5", "x")),
    ]


@pytest.mark.parametrize(
    ("content", "how", "kind", "said"),
    [
        ("id_code,diagnosis\na,1\n", {"required": ("image_id",)}, "missing_column", "it has: id_code, diagnosis"),
        ("a,a\n1,2\n", {"required": ("a",)}, "bad_table", "'a' twice"),
        ("a,b\n1\n", {}, "bad_table", "line 2: the row has 1 cells"),
        ("a,b\n1,2,3\n", {}, "bad_table", "line 2: the row has 3 cells"),
        ("", {}, "bad_table", "is empty"),
        ("ab\n", {"columns": ("image", "label"), "separator": " "}, "bad_table", "line 1: the row has 1 cells"),
    ],
)
def test_bad_text(tmp_path: Path, content: str, how: dict[str, Any], kind: str, said: str) -> None:
    error = refused(text(tmp_path, content), **how)
    assert error.kind == kind
    assert said in error.message


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    assert "UTF-8" in refused(text(tmp_path, "a,b\nä,1\n", "latin-1")).message


def test_absent_files(tmp_path: Path) -> None:
    for name in ("none.csv", "none.xlsx"):
        assert refused(tmp_path / name).kind == "missing_file"


def test_bad_excel(tmp_path: Path) -> None:
    file = tmp_path / "table.xlsx"
    write_excel(file, "Data", [("a", "b"), (1, 2, 3)])
    assert "it has: Data" in refused(file, sheet="Other").message
    assert "line 2: the row has 3 cells" in refused(file).message
    file.write_bytes(b"PK no book")
    assert refused(file).kind == "bad_table"


@pytest.mark.parametrize("place", range(0, 100, 5))
def test_a_damaged_excel_file_is_read_or_refused(tmp_path: Path, place: int) -> None:
    file = tmp_path / "table.xlsx"
    write_excel(file, "Data", [("a", "b"), *((row, "text") for row in range(50))])
    content = bytearray(file.read_bytes())
    start = place * len(content) // 100
    content[start : start + 40] = bytes(range(40))
    file.write_bytes(content)
    try:
        assert read_rows(file)
    except InputError as error:
        assert error.kind == "bad_table"
        assert "\n" not in error.message


def test_a_header_alone(tmp_path: Path) -> None:
    assert read_rows(text(tmp_path, "a,b\n")) == []
    assert read_header(text(tmp_path, "a;b\n1;2\n"), ";") == ["a", "b"]
    assert read_header(text(tmp_path, "")) == []


def test_excel_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "table.xlsx"
    write_excel(file, "Data", [("a",), (1,)])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    error = refused(file)
    assert error.kind == "missing_package"
    assert error.hint == "pip install 'petlbench[excel]'"
