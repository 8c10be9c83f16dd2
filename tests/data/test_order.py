"""The order of classes: from the setting, from numbers, or none; and the kappa that follows."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.order import order_of, task_name

GRADES = ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR")


def opened(folder: Path, **settings: str) -> Dataset:
    return open_dataset(str(folder), catalog=Catalog(), data_root=Path(), settings=settings)


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    for number, name in enumerate(GRADES):
        (tmp_path / "eyes" / name).mkdir(parents=True)
        Image.new("L", (8, 8), 40 * number).save(tmp_path / "eyes" / name / f"{number}.png")
    return tmp_path / "eyes"


@pytest.mark.parametrize(
    ("classes", "order", "task"),
    [
        (("b", "a", "c"), "", "multiclass"),
        (("b", "a", "c"), "b,a,c", "ordinal"),
        (("0", "1", "2"), "", "ordinal"),
        (("0", "1", "2"), "none", "multiclass"),
        (("0", "1"), "", "binary"),
        (("b", "a"), "b,a", "binary"),
        (("0", "1", "NA"), "", "multiclass"),
    ],
)
def test_numbers_and_a_setting_declare_an_order_and_names_do_not(
    classes: tuple[str, ...], order: str, task: str
) -> None:
    assert task_name(classes, order) == task


def test_the_setting_orders_the_classes_of_a_folder(graded: Path) -> None:
    plain, ordered = opened(graded), opened(graded, order=", ".join(GRADES))
    assert (plain.classes, plain.task.name, plain.settings.get("order")) == (tuple(sorted(GRADES)), "multiclass", None)
    assert (ordered.classes, ordered.card.classes, ordered.task.name) == (GRADES, GRADES, "ordinal")
    assert {record.path: ordered.classes[record.label] for record in ordered.records} == {
        record.path: plain.classes[record.label] for record in plain.records
    }


def test_a_card_without_an_order_gets_one_from_the_setting() -> None:
    digits = opened(Path("digits"))
    assert digits.task.name == "multiclass", "the card says so, although the classes are numbers"
    backwards = opened(Path("digits"), order="9,8,7,6,5,4,3,2,1,0")
    assert (backwards.task.name, backwards.classes[backwards.records[0].label]) == ("ordinal", "0")


@pytest.mark.parametrize("order", ["No_DR,Mild", "a,b,c,d,e", ",".join((*GRADES, "Mild")), ","])
def test_an_order_names_each_class_once(graded: Path, order: str) -> None:
    with pytest.raises(InputError, match="does not name each class once") as caught:
        opened(graded, order=order)
    assert "the classes are: Mild, Moderate" in caught.value.hint


def test_a_name_with_a_comma_is_quoted() -> None:
    assert order_of('malignant, "normal, benign"', ("malignant", "normal, benign"), "x")[1] == "normal, benign"
