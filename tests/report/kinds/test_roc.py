"""ROC and precision-recall curves against scikit-learn's figures, matrices, costs, and the sentence on top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.report.build import build_report
from petlbench.report.formats import Document, parse_formats, write_report
from petlbench.report.kinds.roc import _precision_recall, _roc
from petlbench.report.spec import ReportRequest, load_report
from tests.report.stored import store, store_predicted

GRID = np.linspace(0, 1, 101)


def made(results: Path, name: str, **asked: Any) -> Document:
    return build_report(load_report(Catalog(), name), ReportRequest(str(results), **asked), Catalog())


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed in range(2):
        store_predicted(tmp_path, "full", "digits", seed, 2.0, memory=10**9)
        store_predicted(tmp_path, "lora", "digits", seed, 2.0, memory=13 * 10**7)
    return tmp_path


def test_the_area_under_a_curve_is_the_score() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(4000) < 0.3
    chances = np.clip(0.3 * positive + rng.random(4000), 0, 1)
    assert np.trapezoid(_roc(positive, chances), GRID) == pytest.approx(roc_auc_score(positive, chances), abs=2e-3)
    area, precision = (
        np.trapezoid(_precision_recall(positive, chances), GRID),
        average_precision_score(positive, chances),
    )
    assert area == pytest.approx(precision, abs=0.02)
    assert area >= precision - 1e-3  # at each recall it is the best precision that can be had


def test_a_perfect_and_a_random_model() -> None:
    positive = np.arange(100) >= 50
    assert _roc(positive, positive * 1.0)[1:].min() == 1
    assert _precision_recall(positive, positive * 1.0).min() == 1
    assert _roc(positive, np.full(100, 0.5)) == pytest.approx(GRID)
    assert _precision_recall(positive, np.full(100, 0.5))[1:] == pytest.approx(0.5)


def test_the_report_has_both_curves_a_matrix_a_row_and_files_of_them(results: Path, tmp_path: Path) -> None:
    document = made(results, "roc")
    assert [figure.key for figure in document.figures][:2] == ["digits-roc", "digits-pr"]
    assert [figure.kind for figure in document.figures][2:] == ["matrix", "matrix"]
    roc = document.figures[0]
    assert [series.key for series in roc.series] == ["full", "lora", "chance"]
    height = roc.series[0].values["y"]
    assert height[0] == 0
    assert height[-1] == 100
    cell = document.tables[0].rows[0].cells["digits-auc"]
    assert float(np.trapezoid(height, GRID)) == pytest.approx(cell.value, abs=1)
    files = write_report(document, parse_formats("png", None, Catalog()), tmp_path / "out")
    assert {file.name for file in files} >= {"roc-digits-roc.png", "roc-digits-confusion-lora.png"}


def test_a_page_begins_with_what_it_comes_to(results: Path) -> None:
    document = made(results, "table1", against="full")
    assert document.verdict.startswith("LoRA is not separable from Full fine-tuning at 13 % of the memory")
    assert [figure.key for figure in document.figures] == ["tradeoff", "comparison"]
    assert [figure.key for figure in document.details()] == ["digits-roc", "digits-pr"]
    page = document.to_html()
    assert 0 < page.index('class="verdict"') < page.index('id="figure-0"') < page.index('id="table-main"')
    assert page.index('id="table-main"') < page.index('<details class="settings">')


def test_one_seed_tells_nothing_apart(tmp_path: Path) -> None:
    for method in ("full", "lora"):
        store_predicted(tmp_path, method, "digits", 0, 2.0)
    assert made(tmp_path, "table1").verdict.startswith("One seed does not tell methods apart")


def test_a_cost_is_drawn_or_it_is_said_why_not(results: Path) -> None:
    figure = made(results, "tradeoff", x="parameters").figures[0]
    assert (figure.x, figure.axis(figure.x).heading) == ("parameters", "learnable parameters, %")
    assert "measured on" in figure.caption
    with pytest.raises(InputError, match="'curves' has no figure of scores against a cost"):
        made(results, "curves", x="parameters")


def test_a_cost_that_no_row_has_is_no_empty_figure(tmp_path: Path) -> None:
    store(tmp_path, "full", auc=None)
    with pytest.raises(InputError, match="no row has an average score and memory"):
        made(tmp_path, "tradeoff", x="memory")


def test_one_variant_is_enough_for_every_format(tmp_path: Path) -> None:
    store(tmp_path, "fpt", memory=10**8)
    document = made(tmp_path, "ablation")
    files = write_report(document, parse_formats("html,latex,png,md", None, Catalog()), tmp_path / "out")
    names = {file.name for file in files}
    assert names == {"ablation.html", "ablation.tex", "ablation-tradeoff.pdf", "ablation.png", "ablation.md"}


def test_latex_takes_figures_in_and_they_lie_beside_it(results: Path, tmp_path: Path) -> None:
    files = write_report(made(results, "curves"), parse_formats("latex", None, Catalog()), tmp_path / "out")
    names = {file.name for file in files}
    text = (tmp_path / "out/curves.tex").read_text(encoding="utf-8")
    assert r"\includegraphics[width=122mm]{curves-digits-val-auc}" in text
    assert names == {"curves.tex", "curves-digits-val-auc.pdf", "curves-digits-train-loss.pdf"}


def test_a_wide_table_in_latex_goes_on_below_and_is_not_made_smaller(results: Path) -> None:
    text = made(results, "table1", columns=("time", "disk", "gap", "trials")).to_latex()
    main = text[: text.index(r"\end{table}")]
    assert main.count(r"\begin{tabular}") == 2
    assert "resizebox" not in main
    assert main.count("Full fine-tuning &") == 2
    caption = main.partition(r"\caption{")[2].partition("\n")[0]
    assert len(caption) < 4 * 95  # characters of a line at 9 points and 122 mm
