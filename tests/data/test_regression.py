"""One number an image: how it is read, dealt out and scaled."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.record import Record
from petlbench.data.splits import SplitScheme, assign_splits
from petlbench.data.tasks.base import Scale, TaskType
from petlbench.training.loss import Loss, Objective

TASK = Catalog().load("task", "regression", TaskType)
LABELS = TASK.labels


def test_how_it_is_written() -> None:
    assert LABELS.parse("61.5", ["age"]) == 61.5
    assert LABELS.parse(LABELS.text(0.1, ["age"]), ["age"]) == 0.1
    assert LABELS.from_array(np.array([[1], [2]]), ["age"]) == [1.0, 2.0]
    assert list(LABELS.found(["1", "2"], None)) == ["value"]
    assert list(LABELS.found(["1", "2"], ["age"])) == ["age"]
    assert LABELS.refuse_classes(["age", "sex"]) == "has 1 class, not 2"


@pytest.mark.parametrize("text", ["", "old", "nan", "inf", "1,5"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(InputError, match="no finite number"):
        LABELS.parse(text, ["age"])


def test_sides_have_small_and_large_numbers_alike() -> None:
    ages = np.random.default_rng(0).gamma(2, 20, 400)
    records = [Record(f"{number:03d}", "", float(age)) for number, age in enumerate(ages)]
    sides = np.array(assign_splits(records, SplitScheme.parse("random"), 0, strata=TASK.strata))
    for side, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        own = ages[sides == side]
        assert len(own) == pytest.approx(400 * share, abs=10)
        assert np.median(own) == pytest.approx(np.median(ages), rel=0.12)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("l1", torch.nn.functional.l1_loss),
        ("l2", torch.nn.functional.mse_loss),
        ("huber", torch.nn.functional.huber_loss),
    ],
)
def test_losses_compare_standardised_numbers(name: str, function: object) -> None:
    labels, outputs = torch.tensor([50.0, 70.0, 90.0]), torch.tensor([[0.1], [0.4], [-2.0]])
    objective = Objective(Catalog().load("loss", name, Loss), scale=Scale(70.0, 20.0))
    expected = function(outputs[:, 0], torch.tensor([-1.0, 0.0, 1.0]))  # type: ignore[operator]
    torch.testing.assert_close(objective(outputs, labels), expected)
    pieces = [objective(outputs[rows], labels[rows]) * objective.share(labels[rows], labels) for rows in ([0, 1], [2])]
    torch.testing.assert_close(sum(pieces), expected)


def test_the_scale_is_that_of_the_training_labels() -> None:
    scale = TASK.scale(np.array([1.0, 3.0]))
    assert scale == Scale(2.0, 1.0)
    assert scale.to_labels(scale.to_outputs(torch.tensor([5.0]))).item() == 5
    with pytest.raises(InputError, match="all training images have the label 4"):
        TASK.scale(np.full(3, 4.0))


@pytest.mark.parametrize("labels", [[1e12, 1e12 + 10], [1e300, 3e300], [-1e38, 1e38]])
def test_labels_that_single_precision_does_not_tell_apart(labels: list[float]) -> None:
    with pytest.raises(InputError, match="not told apart in single precision"):
        TASK.scale(np.array(labels))
