"""Task types: the shipped ones, and one of the user's own in one file, with several labels an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight  # type: ignore[import-untyped, unused-ignore]

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.card import load_card
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.loader import ImageLoader, ImageStore
from petlbench.data.manifest import manifest_of
from petlbench.data.splits import SplitScheme, assign_splits
from petlbench.data.tasks.base import TaskType

TAGS = '''
import numpy as np

from petlbench.data.tasks.base import Labels, TaskType


class Tags(Labels):
    """Several classes an image: a label has 0 or 1 for each."""

    def refuse_classes(self, classes):
        return ""

    def names(self, text):
        return tuple(text.split("|"))

    def parse(self, text, classes):
        return tuple(int(name in self.names(text)) for name in classes)

    def from_array(self, array, classes):
        return [tuple(map(int, row)) for row in array]

    def to_array(self, labels):
        return np.array(labels, dtype=np.float32)

    def written(self, label):
        return "".join(map(str, label))

    def positions(self, label):
        return tuple(position for position, value in enumerate(label) if value)

    def renumbered(self, label, order, classes):
        return tuple(label[order.index(position)] for position in range(len(order)))


TAGS = TaskType(
    name="tags",
    title="tags",
    labels=Tags(),
    loss="binary_cross_entropy",
    activation=lambda logits: logits.sigmoid(),
    metrics=("auc",),
    selection="auc",
    strata=lambda labels: np.array(labels, dtype=bool),
)
'''

CARD = """
title = "Tagged"
modality = "noise"
task = "tags"
classes = ["a", "b", "c"]
licence = "CC0"
version = 1
split = "random"
grouping = "none"
[reader]
kind = "csv"
"""


@pytest.mark.parametrize("name", ["multiclass", "binary", "ordinal"])
def test_the_shipped_ones_have_one_class_an_image(name: str) -> None:
    task = Catalog().load("task", name, TaskType)
    assert (task.name, task.loss, task.selection) == (name, "cross_entropy", "auc")
    assert task.activation(torch.tensor([[0.0, 0.0]])).tolist() == [[0.5, 0.5]]
    assert task.labels.to_array([2, 0]).dtype == np.int64
    assert task.strata([1, 0]).tolist() == [[False, True], [True, False]]
    assert bool(task.labels.refuse_classes(["a", "b", "c"])) == (name == "binary")
    assert task.labels.refuse_classes(["a"])


def test_a_task_that_no_file_defines_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tagged.toml"
    file.write_text(CARD.replace('"tags"', '"ordnial"'))
    with pytest.raises(InputError, match="task: unknown task 'ordnial'") as caught:
        load_card(file)
    assert (caught.value.kind, caught.value.hint) == ("bad_card", "did you mean ordinal?")


@pytest.fixture
def tagged(tmp_path: Path) -> Dataset:
    for name, text in (("tags.py", TAGS), ("datasets/tagged.toml", CARD)):
        (tmp_path / "catalog" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "catalog" / name).write_text(text)
    rng, lines = np.random.default_rng(0), ["image,label"]
    (tmp_path / "tagged").mkdir()
    for number in range(80):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"tagged/{number:02d}.png")
        tags = [tag for tag, share in (("a", 0.5), ("b", 0.3), ("c", 0.15)) if rng.random() < share]
        lines.append(f"{number:02d}.png,{'|'.join(tags or ['a'])}")
    (tmp_path / "tagged/labels.csv").write_text("\n".join(lines))
    return open_dataset("tagged", catalog=Catalog([tmp_path / "catalog"]), data_root=tmp_path, settings={})


def test_several_labels_an_image_from_one_file(tagged: Dataset) -> None:
    assert tagged.task.name == "tags"
    assert sum(tagged.by_class().values()) > len(tagged.records)
    batch = next(ImageLoader(ImageStore(tagged), range(5), {}, 5, 1).in_order())
    assert batch.labels.tolist() == [list(record.label) for record in tagged.records[:5]]
    assert batch.labels.dtype == torch.float32
    turned = tagged.labelled_as(["c", "a", "b"])
    assert turned.by_class() == {name: tagged.by_class()[name] for name in turned.classes}


@pytest.mark.parametrize("scheme", ["random", "kfold:5/1", "repeat:2/0"])
def test_every_tag_has_its_share_of_every_side(tagged: Dataset, scheme: str) -> None:
    sides = assign_splits(tagged.records, SplitScheme.parse(scheme), 0, strata=tagged.task.strata)
    whole = tagged.by_class()
    for side, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        part = tagged.by_class(record for record, own in zip(tagged.records, sides, strict=True) if own == side)
        assert all(abs(part[name] - share * whole[name]) <= 2 for name in whole)
    manifest = manifest_of(tagged, sides, [""] * len(sides))
    assert set(manifest["label"]) <= {f"{number:03b}" for number in range(8)}


def balanced_weights(labels: Sequence[int], classes: int) -> torch.Tensor:
    weigh = Catalog().load("task", "multiclass", TaskType).balanced
    assert weigh is not None
    return torch.from_numpy(weigh(np.array(labels), classes))


class TestBalancedWeights:
    @given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
    def test_they_are_scikit_learns(self, labels: list[int]) -> None:
        present = sorted(set(labels))
        expected = compute_class_weight("balanced", classes=np.array(present), y=labels)
        # scikit-learn counts the classes that occur, we those of the task; the ratios are the same.
        found = balanced_weights(labels, 6)
        torch.testing.assert_close(found[present], torch.tensor(expected * len(present) / 6).float())

    @pytest.mark.parametrize(
        ("labels", "expected"), [([0, 0, 0, 1], (2 / 3, 2.0)), ([0, 1], (1.0, 1.0)), ([1, 1], (0.0, 0.5))]
    )
    def test_a_class_without_images_weighs_nothing(self, labels: Sequence[int], expected: tuple[float, ...]) -> None:
        assert balanced_weights(labels, 2).tolist() == pytest.approx(expected)

    def test_every_class_weighs_the_same_in_all(self) -> None:
        labels = [0] * 70 + [1] * 20 + [2] * 10
        weights = balanced_weights(labels, 3)
        assert [float(weights[label]) * labels.count(label) for label in range(3)] == pytest.approx([100 / 3] * 3)
        assert weights.dtype == torch.float32
