"""What ``petlbench bench`` makes of its options, with a report's own choices or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petlbench.cli.commands.bench_options import BenchOptions
from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError

CATALOG = Catalog()


def choices(
    methods: str | None = None, datasets: str | None = None, seeds: str | None = None, *settings: str, **given: Any
) -> BenchOptions:
    asked = {"backbone": None, "precision": "fp32", "attention_kernel": "auto", "epochs": None, **given}
    return BenchOptions(methods, datasets, seeds, settings, asked, frozenset(given), None, Path("results"))


def test_without_a_report_methods_and_datasets_are_named() -> None:
    matrix = choices("linear, lora", "digits", "0,2", "lora.rank=4").grid(CATALOG)
    assert (matrix.methods, matrix.datasets, matrix.seeds) == (["linear", "lora"], ["digits"], [0, 2])
    assert matrix.settings == {"lora": {"rank": "4"}}
    with pytest.raises(InputError, match="--method"):
        choices(datasets="digits").grid(CATALOG)


def test_a_report_brings_its_own_study() -> None:
    (matrix,) = choices().grids_for("table1", "any", CATALOG)
    assert "fpt_plus" in matrix.methods
    assert matrix.request.image_size == 512
    assert matrix.request.training["epochs"] == 20
    assert list(matrix.seeds) == [0, 1, 2]


def test_what_is_given_goes_before_a_reports_choice() -> None:
    (matrix,) = choices("linear", "digits", "7", epochs=1).grids_for("table1", "as-published", CATALOG)
    assert (matrix.methods, matrix.datasets, matrix.seeds) == (["linear"], ["digits"], [7])
    assert matrix.request.training["epochs"] == 1
    assert (matrix.request.precision, matrix.request.attention_kernel) == ("fp16", "eager")
    (matrix,) = choices("linear", precision="fp32").grids_for("table1", "as-published", CATALOG)
    assert matrix.request.precision == "fp32"


def test_every_variant_of_a_report_is_a_matrix_of_its_own() -> None:
    found = choices(datasets="digits").grids_for("ablation", "any", CATALOG)
    assert len(found) == 5
    assert len({str(matrix.settings["fpt"]) + str(matrix.request.preload) for matrix in found}) == 5


def test_a_report_that_needs_none_of_the_named_methods_says_so() -> None:
    with pytest.raises(InputError, match="no run of bitfit"):
        choices("bitfit").grids_for("ablation", "any", CATALOG)
