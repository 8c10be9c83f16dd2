"""Figures as a paper takes them: fonts inside, the same file each time, names that cover nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petlbench.core.errors import InputError
from petlbench.report.document import Axis, Figure, Series
from petlbench.report.look import Look
from petlbench.report.render.figure_files import draw
from petlbench.report.render.figures.painters import draw_bars
from petlbench.report.render.figures.scatter import Dot, pareto_front, place_names
from petlbench.report.render.figures.styles import styles
from tests.report.demo import HOSTILE, demo_document

FIGURES = {figure.key: figure for figure in demo_document(seeds=1).figures}
BY_KIND = {figure.kind: figure for figure in reversed(FIGURES.values())}
COORDINATES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@pytest.mark.parametrize("kind", BY_KIND)
def test_every_kind_is_drawn_with_its_names_whatever_they_are(kind: str, tmp_path: Path) -> None:
    figure = next(one for one in demo_document(seeds=1, first_title=HOSTILE).figures if one.kind == kind)
    draw(figure, tmp_path / "figure.svg")
    svg = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert "<script>" not in svg
    assert svg.count("<use ") + svg.count("<path ") > 20  # text is drawn as shapes, so no font is asked for
    assert "font-family" not in svg
    assert [file.name for file in tmp_path.iterdir()] == ["figure.svg"]


def test_a_pdf_holds_its_fonts_and_no_outlines_of_type_3(tmp_path: Path) -> None:
    draw(FIGURES["budget"], tmp_path / "figure.pdf")
    pdf = (tmp_path / "figure.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


@pytest.mark.parametrize("width", [122, 60])
def test_a_figure_is_exactly_as_wide_as_a_column(width: int, tmp_path: Path) -> None:
    draw(BY_KIND["intervals"], tmp_path / "figure.png", replace(Look.of(), width=width))
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width == int(width / 25.4 * 300)
        assert image.convert("L").getextrema()[0] < 60


@pytest.mark.parametrize(("key", "name"), [("tradeoff", "figure.svg"), ("ranks", "figure.pdf")])
def test_the_same_figure_makes_the_same_file(key: str, name: str, tmp_path: Path) -> None:
    files = [tmp_path / folder / name for folder in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        draw(FIGURES[key], file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_missing_values_are_left_out_and_a_figure_without_any_says_so(tmp_path: Path) -> None:
    some = replace(
        FIGURES["tradeoff"],
        series=[
            Series("a", "a", {"auc": [90.0, None], "memory": [None, 100.0]}, labels=["one", "two"]),
            Series("b", "b", {"auc": [91.0], "memory": [200.0], "parameters": [None]}),
        ],
    )
    draw(some, tmp_path / "some.svg")
    assert (tmp_path / "some.svg").is_file()
    draw(replace(some, series=[Series("a", "a", {"auc": [None], "memory": [None]})]), tmp_path / "none.svg")
    assert "no values yet" in (tmp_path / "none.svg").read_text(encoding="utf-8")


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'.gif'") as caught:
        demo_document(seeds=1).save(tmp_path / "figure.gif")
    assert caught.value.kind == "bad_setting"
    assert not list(tmp_path.iterdir())


def test_stacked_bars_stand_on_one_another(tmp_path: Path) -> None:
    from matplotlib.figure import Figure as Sheet

    series = [Series(name, name, {"y": [height, None]}, ["one", "two"]) for name, height in (("a", 1.0), ("b", 2.0))]
    stacked = Figure("f", "bars", "", [Axis("x", "x"), Axis("y", "y")], "x", "y", series, marks={"stacked": True})
    axes = Sheet().add_subplot()
    draw_bars(axes, stacked)
    assert [bar.get_y() for bar in axes.patches if bar.get_height() > 0] == [0, 1]


def test_series_are_told_apart_without_colour() -> None:
    series = [Series(str(number), str(number), {}) for number in range(30)]
    axis = Axis("x", "x")
    seen = [(style.marker, str(style.line)) for _, style in styles(Figure("f", "lines", "", [axis], "x", "x", series))]
    assert len(set(seen)) == len(series)


@given(COORDINATES, st.sampled_from(["higher", "lower"]), st.sampled_from(["higher", "lower"]))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]], x_better: str, y_better: str) -> None:
    x_sign, y_sign = (-1 if better == "higher" else 1 for better in (x_better, y_better))
    costs = [(x_sign * x, y_sign * y) for x, y in points]
    best = {cost for cost in costs if not any(a <= cost[0] and b <= cost[1] and (a, b) != cost for a, b in costs)}
    front = pareto_front([x for x, _ in points], [y for _, y in points], x_better, y_better)
    assert {costs[place] for place in front} == best
    assert len(front) == len(best)


def test_there_is_no_front_where_neither_end_is_good() -> None:
    assert pareto_front([1.0, 2.0], [1.0, 2.0], None, "higher") == []


def test_names_of_crowded_dots_do_not_cover_one_another() -> None:
    from matplotlib.figure import Figure as Sheet

    sheet = Sheet(figsize=(3.4, 2.7))
    axes = sheet.add_subplot()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    places = [(5, 5), (5.2, 5.1), (5.1, 4.8), (4.9, 5.2), (9.8, 9.8), (9.7, 9.9), (0.1, 0.2)]
    place_names(axes, [Dot(f"method {number}", x, y, 40) for number, (x, y) in enumerate(places)])
    sheet.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == len(places)
    assert not [(one, other) for one in range(7) for other in range(one) if boxes[one].overlaps(boxes[other])]
