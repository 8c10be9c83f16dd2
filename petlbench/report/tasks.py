"""The tasks of a suite: their datasets in groups, what others call them, and the averages that a suite is told by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from petlbench.report.document import Better, Column

_BLANK = re.compile(r"[\W_]+")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Task(_Part):
    """A column of a suite."""

    dataset: str = Field(min_length=1, description="the dataset's name in the catalogue")
    title: str = Field(default="", description="the column's heading, short; empty for the end of the dataset's name")
    aliases: tuple[str, ...] = Field(default=(), description="what others call it")

    @property
    def key(self) -> str:
        """Its stable name within the suite: ``cifar`` of ``vtab1k/cifar``."""
        return self.dataset.rpartition("/")[2]

    @property
    def heading(self) -> str:
        """What stands above its column."""
        return self.title or self.key

    @property
    def names(self) -> list[str]:
        """All that it is called."""
        return [name for name in (self.dataset, self.key, self.title, *self.aliases) if name]


class TaskGroup(_Part):
    """Tasks of a kind, which have a mean of their own where there are several groups."""

    title: str = Field(default="", description="its name; empty where all tasks are one group")
    tasks: tuple[Task, ...] = Field(min_length=1, description="its tasks, in the order of the columns")


Groups = Sequence[TaskGroup]


@dataclass(frozen=True)
class Average:
    """A mean over tasks of a suite.

    Args:
        key: Its stable name, which says over how many tasks it is where these are not all.
        title: The same for readers.
        weights: Of each task that it is over, by key; they add up to 1.
    """

    key: str
    title: str
    weights: Mapping[str, float]

    def column(self, better: Better) -> Column:
        """Its column, which stands under ``mean``."""
        return Column(self.key, self.title, "", better, "mean")


def tasks_of(groups: Groups) -> list[Task]:
    """All tasks, in the order of the columns."""
    return [task for group in groups for task in group.tasks]


def averages(groups: Groups, present: Collection[str] = ()) -> list[Average]:
    """The mean of each group, the mean of the groups' means, and the mean of all tasks, over the tasks that are there.

    One group has no mean beside that of all tasks. A mean over fewer tasks than the suite has is called otherwise:
    ``mean19`` becomes ``mean14_of_19``, ``mean3`` becomes ``mean3_over_14``. A group of which no task is there has an
    empty mean, and so have the groups together.

    Args:
        groups: The groups of the suite.
        present: Keys of the tasks that have any figure; none stands for all.
    """
    whole = [[task.key for task in group.tasks] for group in groups]
    parts = [[key for key in keys if not present or key in present] for keys in whole]
    total, count = sum(map(len, whole)), sum(map(len, parts))
    several = zip(groups, whole, parts, strict=True) if len(groups) > 1 else ()
    means = [_of_group(group.title, part or keys, len(keys)) for group, keys, part in several]
    means += [_of_groups(parts if all(parts) else whole, total)] if len(groups) > 1 else []
    weights = equal_weights([key for keys in parts for key in keys])
    if count == total:
        means.append(Average(f"mean{count}", f"{count} tasks", weights))
    else:
        means.append(Average(f"mean{count}_of_{total}", f"{count} of {total} tasks", weights))
    # Where there are as many groups as tasks, their two means are one.
    return list({each.key: each for each in means}.values())


def _of_group(title: str, keys: Sequence[str], total: int) -> Average:
    key, weights = plain_name(title), equal_weights(keys)
    if len(keys) == total:
        return Average(key, title, weights)
    return Average(f"{key}_{len(keys)}_of_{total}", f"{title}, {len(keys)} of {total}", weights)


def _of_groups(parts: Sequence[Sequence[str]], total: int) -> Average:
    count, key, title = sum(map(len, parts)), f"mean{len(parts)}", f"{len(parts)} groups"
    weights = {key: weight / len(parts) for keys in parts for key, weight in equal_weights(keys).items()}
    if count == total:
        return Average(key, title, weights)
    return Average(f"{key}_over_{count}", f"{title}, {count} of {total} tasks", weights)


def equal_weights(keys: Sequence[str]) -> dict[str, float]:
    """The weights of a plain mean."""
    return {key: 1 / len(keys) for key in keys}


def names_of_tasks(groups: Groups) -> dict[str, str]:
    """The key of each task by all that it is called, in the form that `plain_name` gives."""
    return {plain_name(name): task.key for task in tasks_of(groups) for name in task.names}


def plain_name(name: str) -> str:
    """A name as it is compared: in small letters, with ``_`` for all that is no letter and no digit."""
    return _BLANK.sub("_", name.casefold()).strip("_")


def fault_of(groups: Groups) -> str:
    """What is wrong with the names in a suite; empty where each means one thing."""
    titles = [plain_name(group.title) for group in groups]
    if len(groups) > 1 and "" in titles:
        return "each of several groups needs a title"
    names = [name for task in tasks_of(groups) for name in dict.fromkeys(map(plain_name, task.names))]
    twice = [name for name, count in Counter([*names, *titles]).items() if count > 1]
    return f"'{twice[0]}' is the name of two tasks or groups" if twice else ""
