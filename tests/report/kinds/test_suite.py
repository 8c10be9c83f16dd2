"""Suites: a table by group with averages that say what they are over, beside print, and of others' scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.report.build import build_report
from petlbench.report.document import Cell, Table
from petlbench.report.formats import Document
from petlbench.report.spec import ReportRequest, load_report
from tests.report.stored import store, store_study

SUITE = """
title = "Mine"
kind = "suite"
metric = "accuracy"
columns = ["without_head", "with_head", "datasets", "suite_averages"]
[[groups]]
title = "Plain"
tasks = [{ dataset = "mine/one", title = "One" }, { dataset = "mine/two" }]
[[groups]]
title = "Odd"
tasks = [{ dataset = "digits", aliases = ["numbers"] }]
"""
PRINT = """
backbone = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
image_size = 224
tasks = ["one", "two", "digits"]
rows = [
    { source = "x", method = "lora", title = "LoRA", runs = "x", scores = ["70.0", "60.0", "50.0"] },
    { source = "y", method = "lora", title = "LoRA", runs = "x", scores = ["70.0", "61.0", "50.0"] },
    { source = "z", method = "lora", title = "LoRA again", runs = "y", scores = ["1.0", "2.0", "3.0"] },
]
[sources]
x = { title = "X", address = "a" }
y = { title = "Y", address = "b" }
z = { title = "Z", address = "c" }
[runs]
x = { normalize = "half", epoch = "best on validation" }
y = { normalize = "imagenet", epoch = "last" }
"""
HALF = {"normalization": {"mean": [0.5] * 3, "std": [0.5] * 3, "origin": "backbone"}}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """A catalogue with a suite of two groups, and what is printed of it."""
    folder = tmp_path / "catalog"
    (folder / "reports" / "published").mkdir(parents=True)
    (folder / "reports" / "mine.toml").write_text(SUITE)
    (folder / "reports" / "published" / "mine.toml").write_text(PRINT)
    return Catalog([folder])


def made(catalog: Catalog, results: Path | str, name: str = "mine", **asked: Any) -> Document:
    return build_report(load_report(catalog, name), ReportRequest(str(results), **asked), catalog)


def cell(table: Table, row: str, column: str) -> Cell:
    return next(each for each in table.rows if each.key == row).cells[column]


def store_rows(output: Path, scores: dict[str, float], methods: tuple[str, ...] = ("full", "lora")) -> None:
    for method in methods:
        for seed in (0, 1):
            for dataset, score in scores.items():
                auc = score + 0.02 * seed + (0.1 if method == "lora" else 0)
                store(output, method, dataset, seed, auc=auc, data=HALF)


def test_a_suite_has_its_tasks_by_group_and_both_averages(catalog: Catalog, tmp_path: Path) -> None:
    store_rows(tmp_path / "r", {"digits": 0.2, "mine/two": 0.4, "mine/one": 0.6, "another": 0.9})
    table = made(catalog, tmp_path / "r").tables[0]
    assert [(column.group, column.title) for column in table.columns[2:]] == [
        *(("Plain", "One"), ("Plain", "two"), ("Odd", "digits")),
        *(("mean", "Plain"), ("mean", "Odd"), ("mean", "2 groups"), ("mean", "3 tasks")),
    ]
    assert [cell(table, "full", key).value for key in ("plain", "odd", "mean2", "mean3")] == pytest.approx(
        [51, 21, 36, 41]
    )
    # All tasks move together with the seed, and so do the means.
    assert cell(table, "full", "mean2").std == pytest.approx(cell(table, "full", "one").std)
    assert cell(table, "lora", "mean3").mark == "best"


def test_a_part_of_a_suite_has_dashes_and_averages_of_other_names(catalog: Catalog, tmp_path: Path) -> None:
    store_rows(tmp_path / "r", {"digits": 0.2, "mine/one": 0.6})
    store(tmp_path / "r", "linear", "digits", auc=0.5, data=HALF)
    runs = [{"method": "full", "dataset": "mine/two", "seed": 0, "status": "oom"}]
    store_study(tmp_path / "r", "bench", [*runs, {"method": "fpt", "dataset": "elsewhere", "seed": 0}])
    table = made(catalog, tmp_path / "r").tables[0]
    assert [row.key for row in table.rows] == ["full", "linear", "lora"]
    assert cell(table, "full", "two").reason.startswith("out of memory")
    assert [column.key for column in table.columns][-4:] == ["plain_1_of_2", "odd", "mean2_over_2", "mean2_of_3"]
    assert cell(table, "full", "mean2_over_2").value == pytest.approx(41)
    assert cell(table, "linear", "mean2_of_3").reason == "no figure on One"
    assert [word for command in table.commands for word in command.split() if "mine/" in word] == [
        "mine/two",
        "mine/one",
    ]


def test_settings_are_not_mixed_and_other_datasets_are_no_suite(catalog: Catalog, tmp_path: Path) -> None:
    store_rows(tmp_path / "r", {"mine/one": 0.6}, ("full",))
    store(tmp_path / "r", "lora", "mine/one", normalize="imagenet")
    with pytest.raises(InputError, match="normalize=imagenet"):
        made(catalog, tmp_path / "r")
    # Of another name, though it ends alike.
    store(tmp_path / "other", "full", "two")
    with pytest.raises(InputError, match="no result in .* is on a dataset of the suite 'mine'") as caught:
        made(catalog, tmp_path / "other")
    assert "bench --suite mine" in caught.value.hint


def test_ours_stand_above_print_and_differences_where_protocols_are_the_same(catalog: Catalog, tmp_path: Path) -> None:
    store_rows(tmp_path / "r", {"mine/one": 0.6, "digits": 0.2})
    table = made(catalog, tmp_path / "r", compare=True).tables[1]
    assert [(row.key, row.cells.get("source", Cell()).text) for row in table.rows] == [
        *(("lora", "ours"), ("lora@x", "X"), ("lora@x difference", ""), ("lora@y", "Y")),
        *(("lora@y difference", ""), ("lora@z", "Z")),
    ]
    assert cell(table, "lora", "normalize").text == "half"
    assert cell(table, "lora@x difference", "one").text == "+1.00"
    assert cell(table, "lora@x difference", "two").value is None
    assert cell(table, "lora@x", "two").flags == ("61.0 in Y",)
    assert cell(table, "lora@x", "mean2_of_3").value == pytest.approx(60)
    assert (
        "No difference from LoRA again (Z): normalisation imagenet, ours half, epoch last, ours best on validation."
        in table.notes
    )


def test_another_backbone_is_never_compared_with_print(catalog: Catalog, tmp_path: Path) -> None:
    store(tmp_path / "r", "lora", "mine/one", data=HALF, backbone="petlbench_micro")
    table = made(catalog, tmp_path / "r", compare=True).tables[1]
    assert not [row for row in table.rows if "difference" in row.key]
    assert "backbone vit_tiny_patch16_224.augreg_in21k_ft_in1k, ours petlbench_micro" in table.notes[0]


def test_another_score_is_never_compared_with_print(catalog: Catalog, tmp_path: Path) -> None:
    store(tmp_path / "r", "lora", "mine/one", data=HALF)
    with pytest.raises(InputError, match="'mine' is accuracy by image"):
        made(catalog, tmp_path / "r", compare=True, metric="auc")


def test_scores_of_others_are_a_table_of_the_same_columns(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "theirs.csv"
    file.write_text("task,method,score\none,b,60\ntwo,b,40\nnumbers,b,20\none,a,70\nsomething,a,1\n")
    document = made(catalog, file)
    (table,) = document.tables
    assert [column.key for column in table.columns] == ["one", "two", "digits", "plain", "odd", "mean2", "mean3"]
    assert [cell(table, "b", key).value for key in ("mean2", "mean3")] == pytest.approx([35, 40])
    assert (cell(table, "a", "mean3").reason, cell(table, "a", "one").mark) == ("no score on two, digits", "best")
    assert "'something'" in document.notes[0]
    file.write_text(
        "task,method,seed,score\n"
        + "".join(f"one,{m},{s},{60 + s * d}\n" for m, d in (("a", 9), ("b", 0.1)) for s in (0, 1))
    )
    (table,) = made(catalog, file).tables
    assert [cell(table, row, "one").text for row in "ab"] == ["64.5 ± 6.4", "60.0 ± 0.1"]  # one number of decimals
    file.write_text("task,method,score\none,b,60\n")
    assert made(catalog, file).tables[0].notes == [
        "No row has a score on two, digits: averages are over the other tasks."
    ]
    with pytest.raises(InputError, match="--metric means nothing there"):
        made(catalog, file, metric="auc")
    with pytest.raises(InputError, match="'table1' is not made of scores"):
        made(catalog, file, "table1")


def test_print_of_several_protocols_marks_no_best_and_names_what_contradicts(tmp_path: Path) -> None:
    main, differences, contradictions = made(Catalog(), "papers:vtab1k", "vtab1k").tables
    assert not [cell for row in main.rows for cell in row.cells.values() if cell.mark]
    assert cell(main, "full@noah", "oxford_flowers102").flags == ("97.2 in V-PETL Bench",)
    assert cell(main, "full@vpetl", "mean3").text == "68.97"
    assert cell(main, "full@noah", "printed_mean3").text == "68.9"
    assert cell(main, "ssf@vpetl", "epoch").text == "best on test"
    assert [row.title for row in differences.rows] == ["full", "linear", "LoRA"]
    assert len(contradictions.rows) == 3


def test_a_paper_or_print_that_is_not_there_is_named(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="papers:miccai2024 has no figures for the report 'mine'"):
        made(catalog, "papers:miccai2024")
    (catalog.folders[0] / "reports" / "published" / "mine.toml").unlink()
    with pytest.raises(InputError, match="nothing is known that papers print of the suite 'mine'"):
        made(catalog, "papers:mine")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("[[groups]]", "[[group]]", "did you mean groups"),
        ("aliases", "alias", "did you mean groups.1.tasks.0.aliases"),
        ('dataset = "digits"', 'dataset = "mine/two"', "'groups' is refused: 'mine_two' is the name of two"),
        ('tasks = [{ dataset = "digits", aliases = ["numbers"] }]', "tasks = []", "groups.1.tasks"),
    ],
)
def test_a_broken_suite_says_what_is_wrong(catalog: Catalog, old: str, new: str, fault: str) -> None:
    file = catalog.folders[0] / "reports" / "mine.toml"
    file.write_text(SUITE.replace(old, new))
    with pytest.raises(InputError, match=fault):
        load_report(Catalog(catalog.folders), "mine")
