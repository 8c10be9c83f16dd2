"""Columns: what is a number, what is a name, what names single images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from petlbench.audit.metadata_columns import MISSING, Column, columns_of, most_common
from petlbench.audit.scan import Scan

Make = Callable[..., Scan]


def column(scan: Scan, name: str) -> Column:
    return next(one for one in columns_of(scan) if one.name == name)


def test_headers_and_tables_become_columns(scan: Make) -> None:
    extras = [{"site": "north", "age": str(20 + row)} for row in range(20)]
    extras[3] = {"site": " "}
    made = scan([0, 1] * 10, formats=["PNG", "JPEG"] * 10, sizes=[(60, 40)] * 20, extras=extras)
    names = [one.name for one in columns_of(made)]
    assert names == [
        "file format", "bit depth", "file size in bytes", "image size", "pixels", "width / height", "site", "age",
    ]  # fmt: skip
    assert column(made, "file format").values == ("PNG", "JPEG") * 10
    assert column(made, "image size").constant
    assert column(made, "site").values[3] == column(made, "age").values[3] == MISSING
    ages = column(made, "age").numbers
    assert ages is not None
    assert np.isnan(ages[3])
    assert ages[4] == 24


def test_few_numbers_are_names(scan: Make) -> None:
    assert column(scan([0] * 20, extras=[{"year": str(2000 + row % 3)} for row in range(20)]), "year").numbers is None


def test_words_of_single_images_identify(scan: Make) -> None:
    made = scan([0] * 20, extras=[{"id": f"x{row}", "sex": "fm"[row % 2]} for row in range(20)])
    assert column(made, "id").identifies
    assert not column(made, "sex").identifies


def test_images_without_files_have_no_file_columns(scan: Make) -> None:
    from dataclasses import replace

    made = scan([0, 1])
    made = replace(made, images=tuple(replace(image, file=None) for image in made.images))
    assert [one.name for one in columns_of(made)] == ["image size", "pixels", "width / height"]


def test_the_most_common_come_in_the_order_of_their_names() -> None:
    assert most_common(list("ccbbbad"), 3) == ["a", "b", "c"]
