"""Tables in a terminal of any width: whole numbers, or none."""

from __future__ import annotations

import re

import pytest

from petlbench.cli.output import print_table

COLUMNS = ["run", "status", "test AUC, %>", "memory, MiB>", "what it is", "time>"]
ROWS = [
    ["fpt-isic2018-s0-0123456789ab", "finished", "93.88 ± 0.60", "3,182.25", "a sentence of some words", "12.5 s"],
    ["lora-messidor2-s11-0123456789ab", "oom", "-", "21,944.00", "", "1 h 2 min"],
]
WHOLE = [cell for row in ROWS for index, cell in enumerate(row) if index != 4 and cell not in {"", "-"}]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_no_number_and_no_id_is_broken(
    width: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_table("runs", COLUMNS, ROWS, caption="a caption that says something")
    out = capfd.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    hidden = " ".join(out.partition("hidden: --json (")[2].split()).removesuffix(")").split("; ")
    gone = [name for name in COLUMNS if name.rstrip(">") in hidden]
    said = "1 column hidden" if len(gone) == 1 else f"{len(gone)} columns hidden"
    assert said in out or not gone
    kept = [index for index, name in enumerate(COLUMNS) if name not in gone and index != 4]
    assert [row[index] for row in ROWS for index in kept if row[index] not in out] == []
    assert COLUMNS[0] not in gone
    assert (width >= 100) == (not gone)


def test_columns_of_least_rank_stay_in_their_order(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    print_table("runs", COLUMNS, ROWS, ranks=(0, 5, 1, 5, 5, 0))
    out = capfd.readouterr().out
    assert "2 columns hidden: --json (memory, MiB; what it is)" in " ".join(out.split())
    assert out.index("test AUC") < out.index("time")


def test_a_column_that_left_comes_back_where_another_made_room(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    print_table("t", ["name", "wide", "n>"], [["a row", "x" * 30, "3.5"]], ranks=(0, 1, 2))
    out = capfd.readouterr().out
    assert "3.5" in out
    assert "1 column hidden: --json (wide)" in " ".join(out.split())


def test_a_short_name_of_a_row_stands_on_one_line_and_cells_before_headings(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    print_table("t", ["method", "an interval of two>", "verdict"], [["Full fine-tuning", "1 to 2", "not separable"]])
    out = capfd.readouterr().out
    assert re.search(r"Full fine-tuning +1 to 2 +not separable", out)
    assert "an interval of two" not in out  # it stands on several lines


def test_what_is_left_of_a_line_goes_to_the_columns_that_need_most(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table("t", ["what", "short", "long"], [["a", "some words " * 4, "many words " * 12]])
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) <= 8
    assert max(map(len, lines)) <= 80


def test_what_stands_above_columns_spans_them_and_names_the_hidden_ones(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    groups = ["", "on these", "on these", "elsewhere, too"]
    table = (["method", "effect>", "verdict", "verdict"], [["LoRA", "-1.25", "not separable", "too few"]])
    monkeypatch.setenv("COLUMNS", "80")
    print_table("t", *table, groups=groups)
    lines = capfd.readouterr().out.splitlines()
    above, below = lines[2], lines[3]
    assert re.fullmatch(r" +─+ on these ─+  elsewhere, too", above.rstrip())
    assert above.index("─") == below.index("effect")
    assert above.index("elsewhere") == below.rindex("verdict")
    monkeypatch.setenv("COLUMNS", "32")
    print_table("t", *table, groups=groups)
    assert "1 column hidden: --json (verdict elsewhere, too)" in " ".join(capfd.readouterr().out.split())


def test_a_file_has_every_column(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table("runs", COLUMNS * 4, [row * 4 for row in ROWS])
    out = capfd.readouterr().out
    assert "hidden" not in out
    assert all(out.count(cell) == 4 for cell in WHOLE)


def test_a_path_is_broken_and_its_column_stays(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = "/data/" + "x" * 100
    print_table("differences", ["what", "value"], [["dataset", path]])
    out = capfd.readouterr().out
    assert "hidden" not in out
    assert path in "".join(line.removeprefix(" dataset").strip() for line in out.splitlines())
