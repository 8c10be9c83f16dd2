"""Recorded trials of many methods on many tasks, and what their winners reached on the test images."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.data.readers.csv_file import read_lines
from petlbench.results.table import load_results, load_trials

_TRIALS = ("task", "method", "lr", "weight_decay", "settings", "val_top1")
_FINALS = ("task", "method", "test_last")
_MOST_CANDIDATES, _MOST_TASKS = 5_000, 1_000
"""What is believed of candidates takes memory by the square of their number."""
_LARGEST = 1e300
# What makes own runs of one task.
_TASK = (
    "dataset", "split", "shots", "train_fraction", "backbone", "image_size", "training.epochs", "training.batch_size",
)  # fmt: skip


class Arm(NamedTuple):
    """What a race chooses of: a method on a backbone.

    Args:
        method: Name of the method.
        backbone: Name of the backbone where several are compared; empty where there is one.
    """

    method: str
    backbone: str = ""

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"{self.method} on {self.backbone}" if self.backbone else self.method


class Candidate(NamedTuple):
    """A method with the values of all that is searched: what one trial trains.

    Args:
        method: Name of the method.
        values: Learning rate, weight decay and the method's own settings, as (name, value) pairs by name.
        backbone: Name of the backbone where several are compared; empty where there is one.
    """

    method: str
    values: tuple[tuple[str, Any], ...]
    backbone: str = ""

    @classmethod
    def of(cls, method: str, lr: float, weight_decay: float, settings: dict[str, Any], backbone: str = "") -> Candidate:
        """Take a method's values together."""
        values = {**settings, "lr": lr, "weight_decay": weight_decay}
        return cls(method, tuple(sorted(values.items())), backbone)

    @property
    def arm(self) -> str:
        """What a person calls the method on its backbone."""
        return Arm(self.method, self.backbone).title

    @property
    def anywhere(self) -> Candidate:
        """The same on whatever backbone, as a prior knows it."""
        return self._replace(backbone="")


@dataclass(frozen=True)
class RecordedTask:
    """The trials of one task, one each candidate at most.

    Args:
        candidates: What was trained, (N).
        scores: Top-1 on the validation images, percent, (N,).
        losses: Cross-entropy on them in nats, (N,); NaN where it is not known.
    """

    candidates: tuple[Candidate, ...]
    scores: NDArray[np.float64]
    losses: NDArray[np.float64]


Recorded = dict[str, RecordedTask]
"""Recorded trials by task."""


def read_trials(file: Path) -> Recorded:
    """Return the recorded trials of a table by task.

    Args:
        file: CSV with the columns ``task, method, lr, weight_decay, settings`` (JSON of the method's own settings) and
            ``val_top1`` in percent; ``val_loss`` and others are optional. Of a candidate that is there twice, the first
            counts.

    Raises:
        InputError: When the file cannot be read, lacks a column, a cell is none, or there is too much to decide on.
    """
    tasks: dict[str, dict[Candidate, tuple[float, float]]] = {}
    for row in _rows(file, _TRIALS):
        candidate = Candidate.of(row.text("method"), row.number("lr"), row.number("weight_decay"), row.settings())
        loss = row.number("val_loss") if row.cells.get("val_loss", "") not in ("", "nan") else math.nan
        tasks.setdefault(row.text("task"), {}).setdefault(candidate, (row.percent("val_top1"), loss))
    candidates = len(set().union(*tasks.values()))
    if candidates > _MOST_CANDIDATES or len(tasks) > _MOST_TASKS:
        message = f"{file} has {candidates:,} different candidates on {len(tasks):,} tasks"
        hint = f"at most {_MOST_CANDIDATES:,} and {_MOST_TASKS:,} are decided on"
        raise InputError(message, hint=hint, kind="bad_trials")
    if all(score <= 1 for trials in tasks.values() for score, _ in trials.values()):
        message = f"{file}: no val_top1 is above 1"
        raise InputError(message, hint="scores are percent, from 0 to 100", kind="bad_trials")
    return {
        task: RecordedTask(tuple(trials), *np.array(list(trials.values()), dtype=np.float64).T)
        for task, trials in sorted(tasks.items())
    }


def read_finals(file: Path) -> dict[str, dict[str, float]]:
    """Return by task and method the top-1 on the test images, percent, of each method's winner.

    Args:
        file: CSV with the columns ``task, method, test_last``.

    Raises:
        InputError: When the file cannot be read, lacks a column, a cell is none, or a method is there twice.
    """
    reached: dict[str, dict[str, float]] = {}
    for row in _rows(file, _FINALS):
        scores, method = reached.setdefault(row.text("task"), {}), row.text("method")
        if method in scores:
            raise row.wrong("task", f"{method} is there before")
        scores[method] = row.percent("test_last")
    return reached


def own_trials(output: Path, metric: str, but: str) -> Recorded:
    """Return a user's own finished runs and trials as recorded ones.

    A task is a dataset with its split, trained on one backbone at one image size in one number of epochs and one batch
    size; a candidate's score is its mean over seeds. A task of a single candidate compares nothing, and is left out.

    Args:
        output: Folder of results.
        metric: The score on the validation images.
        but: A dataset that is left out: what is about to be decided may not rest on itself.

    Raises:
        InputError: When there is no such folder.
    """
    scores: dict[str, dict[Candidate, list[float]]] = {}
    for run in [*load_results(output).showing_test(False).runs, *load_trials(output).runs]:
        score = run.score(metric, "val") if run.finished and run.config["dataset"] != but else None
        if score is not None:
            task = " ".join(f"{run.value(key)}" for key in _TASK)
            training, settings = run.config["training"], run.config["method_settings"]
            candidate = Candidate.of(run.method, training["lr"], training["weight_decay"], dict(settings))
            scores.setdefault(task, {}).setdefault(candidate, []).append(100 * score)
    return {
        task: RecordedTask(tuple(each), np.array([np.mean(row) for row in each.values()]), np.full(len(each), math.nan))
        for task, each in sorted(scores.items())
        if len(each) > 1
    }


class _Row(NamedTuple):
    """A line of a table, by column."""

    file: Path
    line: int
    cells: dict[str, str]

    def wrong(self, column: str, why: str) -> InputError:
        value = printable(self.cells[column])[:80]
        message = f"{self.file}, line {self.line}: {column} = '{value}': {why}"
        return InputError(message, hint="correct the cell, or leave the row out", kind="bad_trials")

    def text(self, column: str) -> str:
        if not self.cells[column]:
            raise self.wrong(column, "it is empty")
        return self.cells[column]

    def number(self, column: str) -> float:
        try:
            value = float(self.cells[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.wrong(column, "it is no number")
        return value

    def percent(self, column: str) -> float:
        if not 0 <= (value := self.number(column)) <= 100:
            raise self.wrong(column, "it is outside of 0 to 100")
        return value

    def settings(self) -> dict[str, Any]:
        text = self.cells["settings"]
        try:
            values = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or not all(map(_is_plain, values.values())):
            raise self.wrong("settings", 'it is no plain JSON object, such as {"rank": 8}')
        if twice := sorted({"lr", "weight_decay"} & set(values)):
            raise self.wrong("settings", f"{twice[0]} has a column of its own")
        return values


def _is_plain(value: Any) -> bool:
    # No integer that is none as a floating-point number.
    return isinstance(value, str | bool) or (isinstance(value, int | float) and abs(value) < _LARGEST)


def _rows(file: Path, columns: tuple[str, ...]) -> list[_Row]:
    lines = read_lines(file)
    header = [name.strip() for name in next(lines, (1, []))[1]]
    hint = f"it needs the columns {', '.join(columns)}"
    for name in columns:
        if header.count(name) != 1:
            message = f"{file} has {'no column' if name not in header else 'twice the column'} '{name}'"
            raise InputError(message, hint=hint, kind="bad_trials")
    rows = []
    for line, cells in lines:
        if not cells:
            continue
        if len(cells) != len(header):
            message = f"{file}, line {line}: the row has {len(cells)} cells; the header has {len(header)}"
            raise InputError(message, hint="correct or remove the row", kind="bad_trials")
        rows.append(_Row(file, line, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}))
    if not rows:
        raise InputError(f"{file} has no rows", hint="give recorded trials", kind="bad_trials")
    return rows
