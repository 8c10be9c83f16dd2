"""Scores that others have: a CSV read as it lies, or refused with the line that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.report.scores import ScoreTable, read_scores
from petlbench.report.spec import load_suite

GROUPS = load_suite(Catalog(), "vtab1k").groups


def read(folder: Path, text: str) -> ScoreTable:
    file = folder / "theirs.csv"
    file.write_text(text, encoding="utf-8")
    return read_scores(file, GROUPS)


def test_a_table_is_read_by_what_others_call_its_columns_and_tasks(tmp_path: Path) -> None:
    text = (
        "task,Method,test_last,test_best_epoch,inserted_parameters\n"
        "cifar,lora,74.25,74.5,100\ncifar_aug_norm,lora,85.1,86,100\n"
        '"vtab-clevr(task=""count_all"")",lora,80,81,300\nOxford Pet,lora,90,91,200\ncifar100,ssf,70,71,9\n'
    )
    table = read(tmp_path, text)
    lora, ssf = table.rows
    assert lora.scores == {"cifar": [74.25], "clevr_count": [80.0], "oxford_iiit_pet": [90.0]}
    assert (lora.learnable, ssf.scores) == (200.0, {"cifar": [70.0]})
    assert table.notes == [
        "Left out, as the suite has no such task: 'cifar_aug_norm'.",
        "Columns that were not read: test_best_epoch.",
    ]


def test_seeds_are_repeats_and_empty_cells_are_missing(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "dataset,algorithm,acc,seed\ndtd,a,0.6,0\ndtd,a,0.8,1\nsvhn,a,,0\n\n").rows
    cells = row.cells(GROUPS, [])
    assert cells["dtd"].value == pytest.approx(70)
    assert cells["dtd"].std == pytest.approx(14.142, abs=1e-3)
    assert (cells["svhn"].value, cells["svhn"].reason) == (None, "no score")


def test_fractions_are_shown_in_percent_and_a_fraction_among_percents_is_named(tmp_path: Path) -> None:
    table = read(tmp_path, "task,method,score\ndtd,a,0.5\nsvhn,a,1.0\n")
    assert table.rows[0].scores == {"dtd": [50.0], "svhn": [100.0]}
    assert "fractions" in table.notes[0]
    table = read(tmp_path, "task,method,score\ndtd,a,0.5\nsvhn,a,97 %\n")
    assert table.rows[0].scores == {"dtd": [0.5], "svhn": [97.0]}
    assert "a on dtd (line 2)" in table.notes[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no column of the task"),
        ("task,method\n", "no column of the score"),
        ("task,method,score,accuracy\n", "'score' and 'accuracy' could each be the score"),
        ("task,method,score\ndtd,a,nan\n", "line 2: the score 'nan'"),
        ("task,method,score\ndtd,a,-1\n", "line 2: the score '-1'"),
        ("task,method,score\ndtd,a,100.1\n", "line 2: the score '100.1'"),
        ("task,method,score\ndtd,a,1_0\n", "line 2: the score '1_0'"),
        ("task,method,score\ndtd,a\n", "line 2 has 2 cells"),
        ("task,method,score\ndtd,,5\n", "line 2: the method is empty"),
        ("task,method,score\ncifar,a,50\ncifar100,a,51\n", "a on cifar100 stands in line 2 and in line 3"),
        ("task,method,score\nimagenet,a,50\n\x1b[31m,a,1\n", r"its tasks: 'imagenet', '\\x1b\[31m'"),
        ("task,method,score\n" + "dtd,a,5\n" * 200_001, "more than 200,000 lines"),
        ("task,method,score\n" + "".join(f"dtd,m{n},5\n" for n in range(501)), "more than 500 methods"),
        ('task,method,score\n"dtd,a,5\n', "line 2"),
    ],
)
def test_what_is_no_table_of_scores_is_refused_where_it_is_wrong(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault) as caught:
        read(tmp_path, text)
    assert "theirs.csv" in caught.value.message
    assert "\x1b" not in caught.value.message
