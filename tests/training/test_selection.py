"""What chooses the epoch: a score, or that of its worst subgroup."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from petlbench.core.errors import InputError
from petlbench.data.record import Record
from petlbench.data.tasks.binary import BINARY
from petlbench.metrics.classification import AUC, LOSS
from petlbench.metrics.regression import MAE
from petlbench.training.selection import Selection, selection_of

SEXES = {"F": 24, "M": 24, "other": 8}


def records(sexes: dict[str, int], **more: str) -> list[Record]:
    """Images of both classes in turn, by sex."""
    return [
        Record(f"{sex}{row}", "", row % 2, extra=(("sex", sex), *more.items()))
        for sex, count in sexes.items()
        for row in range(count)
    ]


def test_the_worst_subgroup_chooses_and_small_ones_are_left_out_and_named() -> None:
    val = [*records(SEXES), Record("unknown", "", 1)]
    selection = selection_of("worst-group:sex", AUC, BINARY, 2, val)
    assert {name: len(rows) for name, rows in selection.subgroups.items()} == {"F": 24, "M": 24}
    assert selection.left_out == {"other": 8}
    assert selection.describe()["selected_by"]["left_out"] == {"other": 8}
    labels, rng = np.array([record.label for record in val]), np.random.default_rng(0)
    logits = rng.normal(size=(len(val), 2))
    expected = min(
        roc_auc_score(labels[rows], logits[rows, 1] - logits[rows, 0]) for rows in (slice(24), slice(24, 48))
    )
    assert selection.scores(labels, logits) == {"auc_worst_group": pytest.approx(expected)}
    assert selection.key(1, {"auc": 0.9, "auc_worst_group": 0.6}) == (0.6, 0.0)


def test_without_subgroups_the_score_chooses_as_it_did() -> None:
    selection = selection_of("score", AUC, BINARY, 2, records(SEXES))
    assert (selection.name, selection.describe(), selection.scores(np.array([0]), np.zeros((1, 2)))) == ("auc", {}, {})
    assert selection.key(1, {"auc": 0.9}) == (0.9, 0.0)
    assert selection.key(1, {"auc": None, "loss": 0.4}) == (0.0, -0.4)
    assert Selection(LOSS).key(1, {"loss": 0.4}) == (-0.4, 0.0)


def test_where_less_is_better_the_worst_is_the_largest() -> None:
    selection = Selection(LOSS, "sex", {"F": np.array([0]), "M": np.array([1])})
    scores = selection.scores(np.array([0, 0]), np.array([[5.0, 0.0], [0.0, 5.0]]))
    assert scores["loss_worst_group"] == pytest.approx(5.0, abs=0.01)


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("worst-group:age", "unknown column 'age'"),
        ("worst-group:sex", r"fewer than two of the subgroups .*: F \(40 images\), M \(19 images\)"),
    ],
)
def test_what_cannot_choose_is_refused_with_the_reason(select: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        selection_of(select, AUC, BINARY, 2, records({"F": 40, "M": 19}))


def test_images_of_one_patient_count_once() -> None:
    one = [Record(f"{row}", "", row % 2, f"p{row % 6}", extra=(("sex", "FM"[row % 4 // 2]),)) for row in range(120)]
    with pytest.raises(InputError, match="fewer than two of the subgroups"):
        selection_of("worst-group:sex", AUC, BINARY, 2, one)


def test_an_epoch_is_told_by_the_score_that_chooses() -> None:
    assert Selection(AUC).words({"val_auc": 0.88612}) == "validation AUC 88.61 %"
    assert Selection(AUC).words({"val_auc": None}) == "validation AUC undefined"
    assert Selection(MAE).words({"val_mae": 2.5, "val_auc": 0.5}) == "validation MAE 2.50"
    assert Selection(None).words({"val_auc": 0.5}) == ""
