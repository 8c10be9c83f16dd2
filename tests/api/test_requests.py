"""What `bench` makes of its keywords, with a report's own choices or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petlbench.api.requests import StudyRequest
from petlbench.core.errors import InputError
from petlbench.run.keywords import sort_options, take
from petlbench.study.grid import Grid


def grids(
    methods: list[str] | None = None, datasets: list[str] | None = None, seeds: list[int] | None = None, **options: Any
) -> list[Grid]:
    request, rest = take(StudyRequest, {"methods": methods, "datasets": datasets, "seeds": seeds, **options})
    run_options, values = sort_options(rest)
    return request.grids(values, run_options)


def test_without_a_report_methods_and_datasets_are_named() -> None:
    (matrix,) = grids(["linear", "lora"], ["digits"], [0, 2], settings={"lora": {"rank": "4"}})
    assert (matrix.methods, matrix.datasets, matrix.seeds) == (["linear", "lora"], ["digits"], [0, 2])
    assert matrix.settings == {"lora": {"rank": "4"}}
    with pytest.raises(InputError, match="--method"):
        grids(datasets=["digits"])


def test_a_report_brings_its_own_study() -> None:
    (matrix,) = grids(report="table1")
    assert "fpt_plus" in matrix.methods
    assert matrix.request.image_size == 512
    assert matrix.request.training["epochs"] == 20
    assert list(matrix.seeds) == [0, 1, 2]


def test_what_is_given_goes_before_a_reports_choice() -> None:
    (matrix,) = grids(["linear"], ["digits"], [7], report="table1", preset="as-published", epochs=1)
    assert (matrix.methods, matrix.datasets, matrix.seeds) == (["linear"], ["digits"], [7])
    assert matrix.request.training["epochs"] == 1
    assert (matrix.request.precision, matrix.request.attention_kernel) == ("fp16", "eager")
    (matrix,) = grids(["linear"], report="table1", preset="as-published", precision="fp32")
    assert matrix.request.precision == "fp32"


def test_a_setting_goes_before_a_reports_choice_and_is_given_once() -> None:
    settings = {"training": {"epochs": "3"}}
    (matrix,) = grids(report="table1", settings=settings)
    assert matrix.request.training["epochs"] == "3"
    with pytest.raises(InputError, match="epochs twice"):
        grids(report="table1", settings=settings, epochs=1)


def test_every_variant_of_a_report_is_a_matrix_of_its_own() -> None:
    matrices = grids(datasets=["digits"], report="ablation")
    assert len(matrices) == 5
    assert len({str(matrix.settings["fpt"]) + str(matrix.request.preload) for matrix in matrices}) == 5


def test_a_report_that_needs_none_of_the_named_methods_says_so() -> None:
    with pytest.raises(InputError, match="no run of bitfit"):
        grids(["bitfit"], report="ablation")


def test_a_group_of_settings_that_is_no_method_here_is_refused() -> None:
    with pytest.raises(InputError, match="setting group"):
        grids(["linear"], ["digits"], settings={"lora": {"rank": "4"}})


SUITE = """
title = "Mine"
kind = "suite"
[study]
seeds = [3, 4]
request = { image_size = 32, training = { epochs = 2 } }
[[groups]]
tasks = [{ dataset = "digits" }, { dataset = "lesions" }]
"""


def test_a_suite_is_of_any_methods_and_what_is_given_goes_before_its_choice(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "mine.toml").write_text(SUITE)
    (matrix,) = grids(["linear", "lora"], suite="mine", catalog=tmp_path)
    assert (matrix.methods, matrix.datasets, matrix.seeds) == (["linear", "lora"], ["digits", "lesions"], [3, 4])
    assert (matrix.request.image_size, matrix.request.training["epochs"]) == (32, 2)
    (matrix,) = grids(["fpt"], ["lesions"], [0], report="mine", catalog=tmp_path, image_size=64)
    assert (matrix.methods, matrix.datasets, matrix.seeds) == (["fpt"], ["lesions"], [0])
    assert (matrix.request.image_size, matrix.request.training["epochs"]) == (64, 2)
    with pytest.raises(InputError, match="the suite 'mine' has no methods of its own"):
        grids(suite="mine", catalog=tmp_path)


def test_what_is_no_suite_is_none() -> None:
    with pytest.raises(InputError, match="unknown suite 'table1'"):
        grids(["linear"], suite="table1")
    with pytest.raises(InputError, match="--report table1 and --suite vtab1k exclude each other"):
        grids(["linear"], suite="vtab1k", report="table1")


def test_a_protocol_goes_before_a_suites_settings_and_what_is_given_before_both(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    file = tmp_path / "reports" / "mine.toml"
    file.write_text(SUITE.replace("epochs = 2", "epochs = 2, label_smoothing = 0.1"))
    (matrix,) = grids(["linear"], suite="mine", catalog=tmp_path, protocol="published")
    assert (matrix.request.image_size, list(matrix.seeds)) == (224, [42, 44, 82, 100, 800])
    assert matrix.request.training == {"label_smoothing": 0.1}
    assert matrix.basis.protocol is not None
    assert matrix.basis.protocol.name == "published"
    file.write_text(SUITE.replace("[study]", '[study]\nprotocol = "published"'))
    (matrix,) = grids(["linear"], None, [7], suite="mine", catalog=tmp_path, epochs=3)
    assert (matrix.request.image_size, matrix.seeds, matrix.request.training["epochs"]) == (224, [7], 3)
