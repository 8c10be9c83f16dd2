"""Tables in a terminal of any width: whole numbers, or none."""

from __future__ import annotations

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
    hidden = " ".join(out.partition("hidden: --json (")[2].split())
    count = sum(name.rstrip(">") in hidden for name in COLUMNS)
    said = "1 column hidden" if count == 1 else f"{count} columns hidden"
    assert said in out or not count
    kept = [index for index in range(len(COLUMNS) - count) if index != 4]
    assert [row[index] for row in ROWS for index in kept if row[index] not in out] == []
    assert (width >= 100) == (count == 0)


def test_columns_of_least_rank_stay_in_their_order(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    print_table("runs", COLUMNS, ROWS, ranks=(0, 5, 1, 5, 5, 0))
    out = capfd.readouterr().out
    assert "2 columns hidden: --json (memory, MiB, what it is)" in " ".join(out.split())
    assert out.index("test AUC") < out.index("time")


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
