"""Several labels an image: how they are written, dealt out and weighed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.record import Record
from petlbench.data.splits import SplitScheme, assign_splits, group_numbers, shared_groups
from petlbench.data.tasks.base import TaskType
from petlbench.training.loss import Loss, Objective

TASK = Catalog().load("task", "multilabel", TaskType)
LABELS = TASK.labels
LOSS = Catalog().load("loss", TASK.loss, Loss)
NAMES = ("edema", "mass", "nodule")

values = st.sampled_from([0, 1, None])


@given(st.tuples(values, values, values))
def test_a_label_survives_being_written(label: tuple[int | None, ...]) -> None:
    assert LABELS.parse(LABELS.text(label, NAMES), NAMES) == label
    assert LABELS.from_array(LABELS.to_array([label]), NAMES) == [label]
    assert len(LABELS.written(label)) == 3


def test_how_it_is_written() -> None:
    assert LABELS.text((1, None, 0), NAMES) == "edema|?mass"
    assert LABELS.written((1, None, 0)) == "1?0"
    assert LABELS.parse("", NAMES) == (0, 0, 0)
    assert LABELS.positions((1, None, 0)) == (0,)
    assert LABELS.renumbered((1, 0, None), [3, 0, 1], 4) == (0, None, None, 1)
    assert "'a|b'" in LABELS.refuse_classes(["a|b"])
    assert LABELS.refuse_classes([])
    assert not LABELS.refuse_classes(["one"])


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros(3), np.full((2, 3), 2), np.array([["a"] * 3])])
def test_arrays_that_are_no_labels(array: np.ndarray) -> None:
    with pytest.raises(InputError):
        LABELS.from_array(array, NAMES)


def test_what_is_shown_and_asked() -> None:
    assert TASK.answer.say(np.array([0.7, 0.5, 0.9]), NAMES) == "edema|nodule"
    labels = LABELS.to_array([(1, None, 0), (0, 1, 1)])
    chances = TASK.probabilities(np.zeros((2, 3)))
    first, second, _ = TASK.questions(labels, NAMES, chances)
    assert (first.name, first.answers.tolist(), first.outputs) == ("edema", [1, 0], (None, 0))
    assert (second.rows.tolist(), second.chances.tolist()) == ([1], [[0.5, 0.5]])
    np.testing.assert_allclose(
        TASK.activation(torch.tensor([[0.3, -2.0]])), TASK.probabilities(np.array([[0.3, -2.0]]))
    )


class TestLoss:
    def batch(self, seed: int, images: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 2, (images, 3), generator=generator).float()
        labels[torch.rand(labels.shape, generator=generator) < 0.3] = torch.nan
        return torch.randn(images, 3, generator=generator, requires_grad=True), labels

    def test_it_is_torchs_of_what_is_known(self) -> None:
        logits, labels = self.batch(0)
        known = ~labels.isnan()
        weights = torch.tensor([2.0, 1.0, 5.0])
        expected = torch.nn.functional.binary_cross_entropy_with_logits(
            logits[known], labels[known], pos_weight=weights.expand_as(labels)[known]
        )
        loss = Objective(LOSS, class_weights=weights)(logits, labels)
        torch.testing.assert_close(loss, expected)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(gradient).all()
        assert (gradient[~known] == 0).all()

    @pytest.mark.parametrize("size", [1, 5, 12])
    def test_pieces_add_up_to_the_batch(self, size: int) -> None:
        logits, labels = self.batch(1)
        labels[0] = torch.nan
        objective = Objective(LOSS, label_smoothing=0.1, class_weights=torch.tensor([2.0, 1.0, 5.0]))
        pieces = zip(logits.split(size), labels.split(size), strict=True)
        added = sum(objective(piece, part) * objective.share(part, labels) for piece, part in pieces)
        torch.testing.assert_close(added, objective(logits, labels))

    def test_a_batch_of_which_nothing_is_known_teaches_nothing(self) -> None:
        logits, labels = self.batch(2)
        loss = Objective(LOSS)(logits, torch.full_like(labels, torch.nan))
        assert loss.item() == 0

    def test_balanced_weights_make_both_sides_weigh_the_same(self) -> None:
        assert TASK.balanced is not None
        labels = LABELS.to_array([(1, 0, 0), (0, 0, None), (0, 1, None), (0, 0, 0)])
        assert TASK.balanced(labels, 3).tolist() == [3.0, 3.0, 1.0]


@st.composite
def hospitals(draw: st.DrawFn) -> list[Record]:
    """Patients with one to ten images each, which share some of their labels; three to eight labels."""
    seed, labels = draw(st.integers(0, 2**32 - 1)), draw(st.integers(3, 8))
    patients, most = draw(st.integers(120, 300)), draw(st.integers(1, 10))
    rng = np.random.default_rng(seed)
    shares, alike = rng.uniform(0.05, 0.5, labels), draw(st.floats(0, 1))
    records = []
    for patient in range(patients):
        own = rng.random(labels) < shares
        for image in range(rng.integers(1, most + 1)):
            here = np.where(rng.random(labels) < alike, own, rng.random(labels) < shares)
            label = tuple(None if rng.random() < 0.05 else int(value) for value in here)
            records.append(Record(f"{patient}/{image}", f"{patient}/{image}", label, f"p{patient}"))
    return records


@given(hospitals(), st.sampled_from(["random", "repeat:3/1", "kfold:5/2"]), st.booleans())
def test_no_patient_is_on_two_sides_and_labels_have_their_shares(
    records: list[Record], scheme: str, grouped: bool
) -> None:
    if not grouped:
        records = [Record(each.image_id, each.path, each.label) for each in records]
    sides = assign_splits(records, SplitScheme.parse(scheme), 0, strata=TASK.strata)
    assert shared_groups(records, sides) == []
    positive = TASK.strata([record.label for record in records])
    by_group = np.zeros((len(records), positive.shape[1]), dtype=np.int64)
    np.add.at(by_group, group_numbers(records), positive)
    totals, largest = positive.sum(axis=0), by_group.max(axis=0)
    for side, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        part = positive[[own == side for own in sides]].sum(axis=0)
        # Nearer than one image, or one patient's images, no division comes; of three images each side has one.
        bound = np.maximum(share * totals / 3, np.maximum(largest, 1))
        assert (np.abs(part - share * totals) <= bound)[totals >= 8].all(), (side, part, totals)
