"""The papers' memory figures: what is looked up, how the constant is fitted, and how well the rows are predicted."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from petlbench.core.errors import InputError
from petlbench.study.forecast import papers
from petlbench.study.forecast.papers import printed_figures, published_memory
from tools.published_memory import Comparison, PublishedJob, PublishedPeak, compare, jobs, run_job

MIB = 2**20
MICCAI, TNNLS = "miccai2024", "tnnls2025"


def test_printed_figures_are_given_in_the_papers_setting_alone() -> None:
    figures = printed_figures("vit_base_patch16_384.orig_in21k_ft_in1k", 512, 16)
    assert figures["full"] == {MICCAI: 24116 * MIB, TNNLS: 23128 * MIB}
    assert figures["fpt"] == {MICCAI: 3182 * MIB, TNNLS: 1824 * MIB}
    assert figures["fpt_plus"] == {TNNLS: 736 * MIB}
    assert printed_figures("vit_base_patch16_384", 512, 16) == figures
    assert printed_figures("vit_base_patch16_384", 384, 16) == {}
    assert printed_figures("vit_base_patch16_384", 512, 8) == {}
    assert printed_figures("vit_large_patch16_384", 512, 16) == {}


def test_what_an_installed_package_does_not_have_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert published_memory().run_job is run_job
    monkeypatch.setattr(papers, "_CHECKOUT", tmp_path)
    with pytest.raises(InputError, match="--compare papers") as error:
        published_memory()
    assert "clone" in (error.value.hint or "")


def test_a_run_behind_several_rows_is_predicted_once() -> None:
    runs = jobs()
    assert len(runs) == len(set(runs)) == 17


def test_the_constant_is_that_of_the_least_relative_error() -> None:
    # Baselines that are predicted too low by 1,000 MiB each have that as their constant, and then fit.
    comparison = compare([_peak(job, _printed(MICCAI, job.method) - 1000 * MIB) for job in jobs()])
    assert comparison.constants[MICCAI] == pytest.approx(1000 * MIB, abs=1)
    assert all(row.error == pytest.approx(0, abs=1e-9) for row in comparison.rows if row.fitted and row.paper == MICCAI)


def test_the_constant_weighs_rows_by_their_printed_figures() -> None:
    gaps = {"fpt": 200 * MIB, "fpt_plus": 100 * MIB}
    comparison = compare([_peak(job, _printed(TNNLS, job.method) - gaps.get(job.method, 0)) for job in jobs()])
    fpt, plus = (_printed(TNNLS, name) ** -2 for name in ("fpt", "fpt_plus"))
    assert comparison.constants[TNNLS] == pytest.approx((200 * fpt + 100 * plus) / (fpt + plus) * MIB, rel=1e-6)


def test_only_one_paper_was_read_behind_an_evaluation() -> None:
    peaks = [PublishedPeak(job, 10 * MIB, 20 * MIB, 5 * MIB) for job in jobs()]
    comparison = compare(peaks)
    assert {row.predicted - comparison.constants[row.paper] for row in comparison.rows if row.paper == MICCAI} == {
        20 * MIB
    }
    assert {row.predicted - comparison.constants[row.paper] for row in comparison.rows if row.paper == TNNLS} == {
        10 * MIB
    }


def test_rows_say_which_were_fitted() -> None:
    rows = compare([_peak(job, 10 * MIB) for job in jobs()]).rows
    fitted = {(row.paper, row.row) for row in rows if row.fitted}
    baselines = ("full", "linear", "vpt", "attention", "adapter", "bitfit", "lora")
    assert fitted == {(MICCAI, name) for name in baselines} | {(TNNLS, "fpt"), (TNNLS, "fpt_plus")}
    assert len(rows) == 19 + 6


@pytest.mark.slow
def test_the_printed_rows_are_predicted_by_one_constant() -> None:
    comparison = compare([run_job(job) for job in jobs()])
    errors = [abs(row.error) for row in comparison.rows if row.paper == MICCAI and not row.fitted]
    assert statistics.mean(errors) <= 0.03
    assert max(errors) <= 0.1
    errors = [abs(row.error) for row in comparison.rows if row.paper == TNNLS and not row.fitted]
    assert statistics.mean(errors) <= 0.05
    assert _slope(comparison) == pytest.approx(416 * MIB, rel=0.02)


def _slope(comparison: Comparison) -> float:
    """Bytes for ten percent of the tokens more, in which no constant takes part."""
    rows = {row.row: row.predicted for row in comparison.rows if row.table.endswith("table3")}
    return (rows["0.5"] - rows["0.1"]) / 4


def _printed(paper: str, method: str) -> int:
    return printed_figures("vit_base_patch16_384", 512, 16)[method].get(paper, 0)


def _peak(job: PublishedJob, reserved: int) -> PublishedPeak:
    return PublishedPeak(job, reserved, reserved, 0)
