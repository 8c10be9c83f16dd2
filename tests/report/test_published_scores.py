"""What papers print of VTAB-1k and FGVC: means that follow from it, and where it contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.entry import shipped_folder
from petlbench.core.errors import InputError
from petlbench.report.published_scores import contradictions, differences, read_published
from petlbench.report.scores import ScoreTable
from petlbench.report.spec import load_suite, suites
from petlbench.report.tasks import averages

CATALOG = Catalog()
MEANS = {  # of natural, specialized, structured, of the three, and of the 19 tasks
    "full": (75.89, 83.38, 47.64, 68.97, 65.57),
    "linear": (68.93, 77.15, 26.85, 57.64, 52.94),
    "bitfit": (73.30, 78.25, 44.10, 65.22, 62.05),
    "vpt_shallow": (76.81, 79.67, 46.98, 67.82, 64.85),
    "vpt": (78.49, 82.42, 55.00, 71.97, 69.43),
    "adapter": (79.01, 84.08, 58.49, 73.86, 71.44),
    "lora": (79.49, 84.55, 59.78, 74.60, 72.25),
    "adaptformer": (80.56, 84.88, 58.83, 74.75, 72.32),
    "noah": (80.26, 84.88, 61.30, 75.48, 73.25),
    "ssf": (81.57, 86.55, 58.96, 75.69, 73.10),
    "fact_tk": (80.64, 85.30, 60.71, 75.55, 73.23),
    "sct": (82.23, 85.90, 59.87, 76.00, 73.59),
    "repadapter": (81.63, 85.42, 61.23, 76.09, 73.84),
    "hydra": (81.83, 85.95, 61.66, 76.48, 74.21),
    "lst": (77.60, 85.55, 59.61, 74.25, 71.70),
    "dtl": (80.83, 86.10, 63.35, 76.76, 74.58),
    "gps": (83.74, 86.78, 61.89, 77.47, 75.18),
    "last": (80.86, 86.18, 62.28, 76.44, 74.15),
    "snf": (83.79, 86.12, 59.61, 76.51, 74.10),
    "hst": (82.83, 87.12, 64.45, 78.13, 75.99),
}


def published(name: str) -> ScoreTable:
    table = read_published(shipped_folder("report") / "published" / f"{name}.toml", load_suite(CATALOG, name).groups)
    assert table is not None
    return table


def test_the_means_of_every_printed_row_are_those_that_were_computed_from_print_before() -> None:
    means = averages(load_suite(CATALOG, "vtab1k").groups)
    rows = {row.method: row for row in published("vtab1k").rows if row.source == "V-PETL Bench"}
    assert rows.keys() == MEANS.keys()
    for method, row in rows.items():
        assert [row.mean(each) for each in means] == pytest.approx(MEANS[method], abs=0.0051)


def test_printed_averages_that_do_not_follow_are_found_and_rounding_is_told_from_error() -> None:
    groups = load_suite(CATALOG, "vtab1k").groups
    texts = [(d.row.key, d.key, d.rounded, d.is_rounding) for d in differences(published("vtab1k").rows, groups)]
    assert texts == [
        ("full@noah", "mean3", "68.5", False),
        ("linear@noah", "mean3", "57.7", True),
        ("lora@noah", "mean3", "74.6", False),
    ]
    assert not list(differences(published("fgvc").rows, load_suite(CATALOG, "fgvc").groups))


@pytest.mark.parametrize(
    ("suite", "cells"),
    [
        (
            "vtab1k",
            [
                ("full", "oxford_flowers102", ("97.2", "87.2")),
                ("linear", "cifar", ("63.4", "64.4")),
                ("linear", "resisc45", ("68.6", "68.5")),
            ],
        ),
        ("fgvc", [("bitfit", "mean5", ("88.02", "88.41"))]),
    ],
)
def test_sources_that_print_the_same_runs_otherwise_are_found(suite: str, cells: list[object]) -> None:
    assert [(each.rows[0].method, each.key, each.texts) for each in contradictions(published(suite).rows)] == cells


def test_every_suite_has_print_and_every_row_a_source() -> None:
    for name in suites(CATALOG):
        assert all(row.source for row in published(name).rows)


FILE = """
backbone = "b"
image_size = 224
tasks = ["dtd"]
rows = [{ source = "x", method = "m", title = "M", scores = ["5.0"] }]
[sources]
x = { title = "X", address = "y" }
"""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('["5.0"]', '["5.0", "6"]', "2 scores for 1 tasks"),
        ('["5.0"]', '["nan"]', "rows.0.scores.0"),
        ('["dtd"]', '["texture"]', "no task 'texture'"),
        ('source = "x"', 'source = "z"', r"\[sources\] has no 'z'"),
        ('title = "M"', 'title = "M", averages = { mean20 = "5" }', "no average 'mean20'"),
        ('title = "M"', 'title = "M", runs = "r"', r"\[runs\] has no 'r'"),
        ("[sources]", "[sourcess]", "sources"),
        ("rows = [", 'rows = [{ source = "x", method = "m", title = "M2" },', "two rows are of one method"),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path: Path, old: str, new: str, fault: str) -> None:
    file, groups = tmp_path / "vtab1k.toml", load_suite(CATALOG, "vtab1k").groups
    file.write_text(FILE)
    assert read_published(file, groups)
    file.write_text(FILE.replace(old, new))
    with pytest.raises(InputError, match=fault):
        read_published(file, groups)
    assert read_published(tmp_path / "other.toml", groups) is None
