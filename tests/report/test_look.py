"""One name, one colour and one mark for each method, whatever else is in a figure; lengths; nothing of this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.plotting import COLOURS, MARKERS
from petlbench.core.text import without_folders
from petlbench.report.alignment import align
from petlbench.report.document import Axis, Cell, Column, Figure, Row, Series, Table
from petlbench.report.formats import Document
from petlbench.report.look import Look, parse_width
from petlbench.report.render.figures.styles import styles
from petlbench.report.share import without_places
from tests.report.demo import demo_run

AXES = (Axis("x", "x"), Axis("y", "y"))


def figure(*keys: str) -> Figure:
    return Figure.of("f", "lines", "f", AXES, [Series(key, key, {"x": [0.0], "y": [0.0]}) for key in keys])


def test_a_method_looks_the_same_whatever_stands_beside_it() -> None:
    look = Look.of()
    alone, among = (look.dress(figure(*keys)) for keys in (["fpt"], ["lora", "chance", "fpt", "full"]))
    of = [{series.key: style for series, style in styles(each)} for each in (alone, among)]
    assert of[0]["fpt"] == of[1]["fpt"]
    assert len({(style.colour, style.marker) for style in of[1].values()}) == 4


def test_every_method_has_its_own_pair_and_a_users_comes_last(tmp_path: Path) -> None:
    names = Catalog().entries("method")
    places = Look.of().places
    assert sorted(places.values()) == list(range(len(names)))
    pairs = {(COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]) for place in places.values()}
    assert len(pairs) == len(names)
    source = Catalog().entries("method")["bitfit"].file.read_text(encoding="utf-8")
    (tmp_path / "aaa.py").write_text(source.replace('name="bitfit"', 'name="aaa"'), encoding="utf-8")
    mine = Look.of(Catalog([tmp_path])).places
    assert mine.pop("aaa") == len(names)
    assert mine == places


@pytest.mark.parametrize(("text", "width"), [("122", 122), ("60mm", 60), ("12.2 cm", 122), ("4.8in", 121.92)])
def test_widths_are_read_in_their_units(text: str, width: float) -> None:
    assert parse_width(text) == pytest.approx(width)


@pytest.mark.parametrize("text", ["wide", "1mm", "-60mm", "60 miles", "9" * 400])
def test_other_widths_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="40 to 400 mm"):
        parse_width(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/jane doe/my images", "my images"),
        ("results in '/home/jane doe/results' and /data/a/b.csv, n/a", "results in 'results' and b.csv, n/a"),
        ("sqlite:////home/jane/mlflow.db", "sqlite:///mlflow.db"),
        ("https://arxiv.org/abs/2403.07576", "https://arxiv.org/abs/2403.07576"),
        ("learnable / all, images/s, C:\\Users\\jane\\x.png", "learnable / all, images/s, x.png"),
    ],
)
def test_of_a_path_the_last_part_is_left(text: str, shown: str) -> None:
    assert without_folders(text) == shown


@pytest.mark.parametrize("name", ["md", "html", "latex", "csv", "json"])
def test_no_format_names_a_folder_of_this_machine(name: str, tmp_path: Path) -> None:
    columns = [Column("a", "a", numeric=False)]
    rows = [Row("r", "r", {"a": Cell(text="read from /home/jane/private/x.csv")})]
    table = Table("main", "t", columns, rows, commands=["petlbench run --dataset /home/jane/private/set"])
    run = demo_run("lora", "ddsm", 0)
    run |= {"folder": "/home/jane/r", "config": {**run["config"], "dataset": "/home/jane/private/set"}}
    document = Document("d", "d", [table], runs=[run], source="/home/jane/results", notes=["in /home/jane/results"])
    assert "jane" not in repr(without_places(document))  # a page packs its runs
    for file in document.save(tmp_path / f"d.{name.replace('latex', 'tex')}"):
        assert "jane" not in file.read_text(encoding="utf-8")


def cells(*values: Cell) -> Table:
    rows = [Row(str(number), "", {"a": cell}) for number, cell in enumerate(values)]
    return Table("main", "", [Column("a", "a", "MiB" if values[0].std is None else "%")], rows)


def texts(table: Table) -> list[str]:
    return [row.cells["a"].text for row in table.rows]


def test_a_column_has_one_number_of_decimals() -> None:
    table = cells(
        Cell(59.01, "59 ± 4", std=3.9), Cell(53.083, "53.083 ± 0.012", std=0.012), Cell(text="–", reason="no")
    )
    assert texts(align(table)) == ["59.0 ± 3.9", "53.1 ± 0.0", "–"]
    assert texts(align(table, 2)) == ["59.01 ± 3.90", "53.08 ± 0.01", "–"]
    assert align(align(table)) == align(table)
    assert align(replace(table, has_print=True)) == replace(table, has_print=True)


def test_a_column_has_one_unit_and_its_numbers_stay() -> None:
    table = align(cells(Cell(23128.0, "23,128.0"), Cell(736.0, "736.0")))
    assert texts(table) == ["22.59", "0.72"]
    assert table.columns[0].heading == "a, GiB"
    assert [row.cells["a"].value for row in table.rows] == [23128.0, 736.0]
    assert table.columns[0].unit == "MiB"
    assert texts(align(cells(Cell(736.0, "736.0"), Cell(9.0, "9.0")))) == ["736.0", "9.0"]
