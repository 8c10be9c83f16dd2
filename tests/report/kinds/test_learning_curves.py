"""Score by number of labels: points of draws and seeds, what reaches what, and nothing mixed."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.report.build import build_report
from petlbench.report.formats import Document
from petlbench.report.kinds.learning_curves import labels_needed
from petlbench.report.render.figure_files import drawn
from petlbench.report.spec import ReportRequest, load_report, required_study
from tests.report.stored import store

PARTS: dict[float, int] = {0.1: 10, 0.5: 50, 1.0: 100}
SCORES = {"linear": (0.70, 0.80, 0.85), "fpt": (0.60, 0.85, 0.90)}


def data_of(images: int, groups: bool = False, official: bool = False) -> dict[str, Any]:
    data = {"images": {"train": images, "test": 40}, "drawn": {"official": official}}
    return data | {"groups": {"train": images // 2, "test": 20}} if groups else data


def stored(output: Path, groups: bool = False) -> Path:
    """Two methods at three numbers of labels, in three draws; of all labels in three seeds."""
    for (method, scores), repeat in itertools.product(SCORES.items(), range(3)):
        for (fraction, images), score in zip(PARTS.items(), scores, strict=True):
            part: dict[str, Any] = {"train_fraction": fraction, "draw": repeat} if fraction < 1 else {"seed": repeat}
            store(output, method, auc=score + 0.01 * (repeat - 1), data=data_of(images, groups), **part)
    return output


def made(output: Path, **asked: Any) -> Document:
    return build_report(load_report(Catalog(), "learning_curves"), ReportRequest(str(output), **asked), Catalog())


def test_a_point_is_the_mean_over_draws_and_seeds(tmp_path: Path) -> None:
    document = made(stored(tmp_path))
    scores, needed = document.tables
    assert [column.heading for column in scores.columns] == [
        "10 % (10 images), %",
        "50 % (50 images), %",
        "all (100 images), %",
    ]
    by_method = {row.key: row for row in scores.rows}
    assert by_method["fpt"].cells["50_percent"].value == pytest.approx(85)
    assert by_method["fpt"].cells["50_percent"].std == pytest.approx(1)
    assert [by_method[name].cells["10_percent"].mark for name in ("linear", "fpt")] == ["best", "second"]
    assert len(by_method["fpt"].runs) == 9
    (figure,) = document.figures
    assert (figure.x, figure.axis("images").scale) == ("images", "log")
    line = next(series for series in figure.series if series.key == "fpt")
    assert line.values["images"] == [10, 50, 100]
    assert line.values["score_low"] == pytest.approx([59, 84, 89])
    assert line.values["score_high"] == pytest.approx([61, 86, 91])
    cells = {row.key: row.cells for row in needed.rows}
    assert cells["fpt"]["linear"].value == pytest.approx(50)
    assert (cells["linear"]["fpt"].value, cells["linear"]["fpt"].text) == (None, "> 100")
    assert drawn(figure, ".png").startswith(b"\x89PNG")


def test_where_groups_are_known_labels_are_groups(tmp_path: Path) -> None:
    document = made(stored(tmp_path, groups=True))
    (figure,) = document.figures
    assert (figure.x, [axis.key for axis in figure.axes]) == ("groups", ["groups", "images", "score"])
    assert document.tables[0].columns[0].title == "10 % (5 groups)"


def test_every_format_can_be_written(tmp_path: Path) -> None:
    document = made(stored(tmp_path / "results"))
    for suffix in (".md", ".tex", ".html", ".csv", ".json", ".png"):
        (tmp_path / suffix).mkdir()
        document.save(tmp_path / suffix / f"curves{suffix}")
        assert all(file.stat().st_size for file in (tmp_path / suffix).iterdir())


def test_what_no_point_may_mix_is_refused(tmp_path: Path) -> None:
    store(stored(tmp_path), "linear", train_fraction=0.1, draw=7, training={"lr": 0.5}, data=data_of(10))
    with pytest.raises(InputError, match="10 %, has runs of several configurations on digits: training.lr"):
        made(tmp_path)
    store(tmp_path, "linear", train_fraction=0.1, image_size=448, data=data_of(10))
    with pytest.raises(InputError, match="no table may mix: image_size"):
        made(tmp_path)


def test_results_of_all_labels_alone_are_no_curve(tmp_path: Path) -> None:
    store(tmp_path, "linear")
    with pytest.raises(InputError, match="of one number of labels") as caught:
        made(tmp_path)
    assert "--train-fraction" in caught.value.hint


def test_the_draws_of_the_release_are_named(tmp_path: Path) -> None:
    assert made(stored(tmp_path / "own")).notes == []
    for draw, shots in ((0, 1), (0, 5)):
        store(tmp_path, "linear", shots=shots, draw=draw, data=data_of(2 * shots, official=True))
    assert made(tmp_path).notes == ["The draws are the release's own."]
    store(tmp_path, "linear", shots=5, draw=1, data=data_of(10))
    assert made(tmp_path).notes == ["Some draws are the release's own, others petlbench's."]


def test_the_report_says_which_runs_it_needs() -> None:
    (matrix,) = required_study(load_report(Catalog(), "learning_curves"))
    assert matrix["parts"] == [{"train_fraction": share} for share in (0.05, 0.1, 0.25, 0.5, 1.0)]
    assert matrix["draws"] == [0, 1, 2]


def test_between_two_points_labels_are_read_off_a_logarithmic_axis() -> None:
    points = [(10, 60.0), (100, 70.0), (1000, 90.0)]
    assert labels_needed(points, 65) == pytest.approx(10**1.5)
    assert labels_needed(points, 70) == pytest.approx(100)
    assert labels_needed(points, 50) == 10
    assert labels_needed(points, 91) is None
    # A score that is lost again was not reached yet.
    assert labels_needed([(10, 60.0), (100, 80.0), (1000, 70.0), (10000, 90.0)], 75) == pytest.approx(10**3.25)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6), st.floats(0, 100))
def test_what_is_needed_lies_on_the_curve(scores: list[float], goal: float) -> None:
    points = [(10.0 * 2**place, score) for place, score in enumerate(scores)]
    needed = labels_needed(points, goal)
    if scores[-1] < goal:
        assert needed is None
        return
    assert needed is not None
    assert points[0][0] <= needed <= points[-1][0] * (1 + 1e-12)
    above = [score for labels, score in points if labels > needed * (1 + 1e-9)]
    assert all(score >= goal for score in above)
    assert not math.isnan(needed)
