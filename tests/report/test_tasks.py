"""The averages of a suite, and how they are called where tasks are missing."""

from __future__ import annotations

import pytest

from petlbench.core.catalog import Catalog
from petlbench.report.spec import load_suite, suites
from petlbench.report.tasks import Task, TaskGroup, averages, fault_of, tasks_of

GROUPS = load_suite(Catalog(), "vtab1k").groups
KEYS = [task.key for task in tasks_of(GROUPS)]


def test_a_whole_suite_has_a_mean_of_each_group_of_the_groups_and_of_all_tasks() -> None:
    means = {each.key: each.weights for each in averages(GROUPS)}
    assert list(means) == ["natural", "specialized", "structured", "mean3", "mean19"]
    assert all(sum(weights.values()) == pytest.approx(1) for weights in means.values())
    assert means["mean3"]["cifar"] == pytest.approx(1 / 21)
    assert means["mean3"]["eurosat"] == pytest.approx(1 / 12)
    assert set(means["mean19"].values()) == {1 / 19}


def test_no_mean_over_fewer_tasks_has_the_name_of_the_whole() -> None:
    present = set(KEYS) - {"svhn", "dmlab", "kitti"}
    means = {each.key: each for each in averages(GROUPS, present)}
    assert list(means) == ["natural_6_of_7", "specialized", "structured_6_of_8", "mean3_over_16", "mean16_of_19"]
    assert means["mean16_of_19"].title == "16 of 19 tasks"
    assert set(means["mean3_over_16"].weights) == present
    assert means["mean3_over_16"].weights["cifar"] == pytest.approx(1 / 18)


def test_without_a_group_there_is_no_mean_of_groups() -> None:
    present = {"cifar", "dtd", "eurosat"}
    means = {each.key: each.weights.keys() for each in averages(GROUPS, present)}
    assert means["mean3"] == set(KEYS)
    assert means["structured"] == {task.key for task in GROUPS[2].tasks}
    assert means["mean3_of_19"] == present


def test_every_task_of_a_shipped_suite_has_a_card() -> None:
    cards = Catalog().entries("dataset")
    for name in suites(Catalog()):
        assert not set(load_suite(Catalog(), name).datasets) - cards.keys()


def test_one_group_has_one_mean() -> None:
    assert [each.key for each in averages(load_suite(Catalog(), "fgvc").groups)] == ["mean5"]


@pytest.mark.parametrize(
    ("groups", "fault"),
    [
        ([("A", "x"), ("", "y")], "needs a title"),
        ([("A", "x"), ("B", "x")], "'x' is the name of two"),
        ([("A", "s/x"), ("B", "t/x")], "'x' is the name of two"),
        ([("x", "x"), ("B", "y")], "'x' is the name of two"),
        ([("A", "x"), ("B", "y")], ""),
    ],
)
def test_every_name_means_one_thing(groups: list[tuple[str, str]], fault: str) -> None:
    made = [TaskGroup(title=title, tasks=(Task(dataset=dataset),)) for title, dataset in groups]
    assert fault in fault_of(made)
    assert bool(fault) == bool(fault_of(made))
