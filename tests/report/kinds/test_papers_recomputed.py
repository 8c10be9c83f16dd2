"""The papers' tables, computed again from their own figures."""

from __future__ import annotations

from typing import Any

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.report.build import build_report
from petlbench.report.document import Table
from petlbench.report.formats import Document
from petlbench.report.kinds.papers import paper_table, recomputed
from petlbench.report.spec import ReportRequest, load_report
from petlbench.study.forecast.papers import papers


def made(report: str, paper: str, **asked: Any) -> Document:
    catalog = Catalog()
    return build_report(load_report(catalog, report), ReportRequest(f"papers:{paper}", **asked), catalog)


def differing(table: Table) -> list[tuple[str, str, str, str]]:
    return [(row.title, *(row.cells[key].text for key in ("what", "computed", "printed"))) for row in table.rows]


def test_all_that_differs_from_the_first_table_is_four_pmes_and_an_average() -> None:
    main, differences = made("table1", "miccai2024").tables
    assert differing(differences) == [
        ("Adapter", "PME", "68.38", "68.39"),
        ("BitFit", "PME", "68.96", "68.97"),
        ("LoRA", "average of its cells", "90.76", "91.01"),
        ("LoRA", "PME", "68.71", "68.72"),
        ("FPT", "PME", "87.43", "87.42"),
    ]
    assert [column.key for column in main.columns][-3:] == ["average", "ppe", "pme"]


def test_every_ppe_and_pme_follows_from_the_printed_average() -> None:
    main = made("table1", "miccai2024").tables[0]
    printed = paper_table("miccai2024", "table1")
    assert printed is not None
    assert len(main.rows) == len(printed.rows) == 8
    for row, line in zip(main.rows, printed.rows, strict=True):
        assert row.cells["ppe"].value == pytest.approx(line.printed["ppe"], abs=0.005)
        assert row.cells["pme"].value == pytest.approx(line.printed["pme"], abs=0.011)


def test_the_best_and_the_second_are_those_that_the_paper_marks() -> None:
    main = made("table1", "miccai2024").tables[0]
    marked = {
        column.key: [
            next((row.key for row in main.rows if row.cells[column.key].mark == mark), "")
            for mark in ("best", "second")
        ]
        for column in main.columns
    }
    assert marked["average"] == ["full", "fpt"]
    assert marked["memory"] == ["fpt", "linear"]
    assert marked["pme"] == ["fpt", "linear"]
    assert marked["learnable"] == ["linear", "bitfit"]


def test_two_pmes_of_the_ablation_do_not_follow_from_their_rows() -> None:
    differences = made("ablation", "miccai2024").tables[1]
    assert differing(differences)[:2] == [
        ("side network alone at 512", "PME", "63.40", "62.95"),
        ("+ important token selection", "PME", "85.16", "84.82"),
    ]


def test_the_second_papers_figures_are_those_that_follow_from_its_summary() -> None:
    rows = {row.key: row for row in made("table1", "tnnls2025").tables[0].rows}
    assert [rows[key].cells["pme"].text for key in ("full", "fpt", "fpt_plus")] == ["65.73", "83.60", "85.94"]
    assert [rows[key].cells["ppe"].text for key in ("full", "lora", "fpt_plus")] == ["65.73", "85.69", "86.73"]


@pytest.mark.parametrize(("paper", "report"), [(paper.key, report) for paper in papers() for report in paper.tables])
def test_every_printed_table_can_be_shown(paper: str, report: str) -> None:
    table = paper_table(paper, report)
    assert table is not None
    document = made(report, paper)
    assert len(document.tables[0].rows) == len(table.rows)
    assert all("pme" in recomputed(row, table) for row in table.rows)


def test_a_report_without_printed_figures_says_which_there_are() -> None:
    with pytest.raises(InputError, match="no figures for the report 'curves'") as caught:
        made("curves", "miccai2024")
    assert "report table1 --results papers:miccai2024" in caught.value.hint


def test_an_unknown_paper_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown paper 'miccai2023'") as caught:
        made("table1", "miccai2023")
    assert "miccai2024" in caught.value.hint


@pytest.mark.parametrize("paper", ["miccai2024", "tnnls2025"])
def test_the_tradeoff_of_a_paper_is_drawn_from_its_printed_figures(paper: str) -> None:
    document = made("tradeoff", paper)
    (figure,) = document.figures
    table = paper_table(paper, "tradeoff")
    assert table is not None
    assert [series.values["memory"] for series in figure.series] == [[row.printed["memory"]] for row in table.rows]


def test_the_tradeoff_of_a_paper_shows_the_cost_that_was_asked_for() -> None:
    (figure,) = made("tradeoff", "miccai2024", x="parameters").figures
    assert (figure.x, figure.size) == ("parameters", "memory")
    assert all(series.values["parameters"][0] is not None for series in figure.series)
    with pytest.raises(InputError, match="papers print no times"):
        made("tradeoff", "miccai2024", x="time")


@pytest.mark.parametrize(
    ("asked", "option"),
    [({"metric": "kappa"}, "--metric"), ({"figure": "reserved"}, "--memory"), ({"columns": ("gap",)}, "--columns")],
)
def test_an_option_that_printed_figures_cannot_heed_is_refused(asked: dict[str, Any], option: str) -> None:
    with pytest.raises(InputError, match=f"{option} means nothing there"):
        made("table1", "miccai2024", **asked)
