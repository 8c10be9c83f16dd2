"""Scores of a suite that others have, as rows; and the reader of a CSV of tasks, methods and scores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path
from statistics import fmean, stdev

from petlbench.core.errors import InputError
from petlbench.core.text import first_few, plain_cell, printable
from petlbench.data.readers.csv_file import read_lines
from petlbench.report.cells import rounded
from petlbench.report.document import Cell
from petlbench.report.tasks import Average, Groups, names_of_tasks, plain_name, tasks_of

_COLUMNS: Mapping[str, Sequence[str]] = {
    "task": ("task", "dataset", "data"),
    "method": ("method", "algorithm"),
    "score": (
        *("score", "accuracy", "acc", "top1", "top_1", "acc1", "test", "test_score", "test_accuracy", "test_acc"),
        *("test_top1", "test_last"),
    ),
    "repeat": ("seed", "repeat", "run"),
    "learnable": ("parameters_without_head", "learnable_parameters", "inserted_parameters"),
}
"""What others call the columns."""

_REQUIRED = ("task", "method", "score")
_MISSING = ("", "-", "–", "—")
_NUMBER = re.compile(r"\d{1,12}(\.\d{0,30})?([eE]-?\d{1,2})?", re.ASCII)
_MOST_LINES, _MOST_METHODS, _LONGEST_NAME, _MOST_SHOWN = 200_000, 500, 200, 8


@dataclass(frozen=True)
class ScoreRow:
    """Scores of one method.

    Args:
        key: Its stable name within the table.
        method: petlbench's name of the method where it is one of its own, or else as it was written.
        title: What stands in front of it.
        scores: The score of every repeat by task, in percent.
        texts: What is printed of a score, by task; empty where a score is a number only.
        learnable: Learnable parameters without the head.
        source: Where it stands; empty for one file.
        runs: Whose runs these are: rows of one method and the same runs are to agree.
        normalize: What images are fed with, as ``--normalize`` names it; empty where nobody says.
        epoch: Which epoch is reported; empty where nobody says.
        printed: Averages that are printed beside, by their keys.
    """

    key: str
    method: str
    title: str
    scores: Mapping[str, Sequence[float]]
    texts: Mapping[str, str] = field(default_factory=dict)
    learnable: float | None = None
    source: str = ""
    runs: str = ""
    normalize: str = ""
    epoch: str = ""
    printed: Mapping[str, str] = field(default_factory=dict)

    def cells(self, groups: Groups, means: Sequence[Average]) -> dict[str, Cell]:
        """Its scores by task, and its averages computed from them."""
        keys = [task.key for task in tasks_of(groups)]
        cells = {key: self._cell(key) for key in keys}
        return cells | {each.key: self._average(each, groups) for each in means}

    def mean(self, average: Average) -> float | None:
        """An average of its scores in percent; None where a task has none."""
        if not self.scores.keys() >= average.weights.keys():
            return None
        return fsum(weight * fmean(self.scores[key]) for key, weight in average.weights.items())

    def _cell(self, key: str) -> Cell:
        if key not in self.scores:
            return Cell(text="–", reason="no score")
        scores = self.scores[key]
        std = stdev(scores) if len(scores) > 1 else None
        return Cell(fmean(scores), self.texts.get(key) or rounded(fmean(scores), std), std=std)

    def _average(self, average: Average, groups: Groups) -> Cell:
        value = self.mean(average)
        if value is not None:
            return Cell(value, f"{value:.2f}")
        headings = {task.key: task.heading for task in tasks_of(groups)}
        missing = [headings[key] for key in average.weights if key not in self.scores]
        return Cell(text="–", reason=f"no score on {', '.join(missing)}")


@dataclass(frozen=True)
class ScoreTable:
    """Scores of several methods.

    Args:
        rows: The rows in their order.
        notes: What a reader should know: what was left out, and how scores were read.
        backbone: What all of them adapt; empty where nobody says.
        image_size: In pixels; 0 where nobody says.
    """

    rows: Sequence[ScoreRow]
    notes: Sequence[str] = ()
    backbone: str = ""
    image_size: int = 0

    @property
    def tasks(self) -> set[str]:
        """Keys of the tasks that any row has."""
        return {key for row in self.rows for key in row.scores}

    @property
    def is_of_one_protocol(self) -> bool:
        """Whether all rows have the same source, normalisation and epoch, or nobody says otherwise."""
        return len({(row.source, row.normalize, row.epoch) for row in self.rows}) < 2


@dataclass(frozen=True)
class _Line:
    """A line of a table; its score as it is written, in percent or a fraction."""

    number: int
    task: str
    method: str
    score: float
    repeat: str
    learnable: float | None


def read_scores(file: Path, groups: Groups) -> ScoreTable:
    """Read a CSV with a line for each task and method, and for each seed where there is such a column.

    Scores are in percent, or fractions where none is above 1. Tasks that the suite does not have are left out, and a
    note names them.

    Raises:
        InputError: When the file is no such table, a score is none, or a task of a method is there twice.
    """
    numbered = read_lines(file)
    header = next(numbered, (0, []))[1]
    columns = _columns(file, header)
    names = names_of_tasks(groups)
    lines = [_line(file, number, cells, columns) for number, cells in _bounded(file, numbered) if any(cells)]
    scores = [line for line in lines if line is not None]
    others = dict.fromkeys(line.task for line in scores if plain_name(line.task) not in names)
    by_task = [(names[plain_name(line.task)], line) for line in scores if line.task not in others]
    left_out = first_few([f"'{name}'" for name in others], _MOST_SHOWN)
    if not by_task:
        fault = f"it has no score on a task of the suite; its tasks: {left_out or 'none'}"
        raise _refused(file, fault, "the suite's file names the tasks, and what else they are called")
    factor = 1 if any(line.score > 1 for _, line in by_task) else 100
    notes = [f"Left out, as the suite has no such task: {left_out}."] if others else []
    notes += _notes_on_units([line for _, line in by_task], factor)
    unread = [printable(name) for place, name in enumerate(header) if place not in columns.values()]
    notes += [f"Columns that were not read: {first_few(unread, _MOST_SHOWN)}."] if unread else []
    return ScoreTable(_rows(file, by_task, factor), notes)


def _columns(file: Path, header: Sequence[str]) -> dict[str, int]:
    """The place of each column that is there."""
    names = [plain_name(name) for name in header]
    columns = {}
    for role, synonyms in _COLUMNS.items():
        places = [place for place, name in enumerate(names) if name in synonyms]
        if len(places) > 1:
            both = " and ".join(f"'{printable(header[place])}'" for place in places)
            raise _refused(file, f"the columns {both} could each be the {role}", f"rename all but one of {role}")
        if places:
            columns[role] = places[0]
        elif role in _REQUIRED:
            fault = f"it has no column of the {role}; it has {first_few(list(map(printable, header)), _MOST_SHOWN)}"
            raise _refused(file, fault, f"call the column one of {', '.join(synonyms)}")
    return columns


def _bounded(file: Path, lines: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    for count, line in enumerate(lines):
        if count == _MOST_LINES:
            raise _refused(file, f"it has more than {_MOST_LINES:,} lines", "give the scores of one suite")
        yield line


def _line(file: Path, number: int, cells: Sequence[str], columns: Mapping[str, int]) -> _Line | None:
    """What a line says; None where it has no score."""
    if len(cells) <= max(columns.values()):
        raise _refused(file, f"line {number} has {len(cells)} cells", "correct or remove the line")
    texts = {role: plain_cell(cells[place].strip()) for role, place in columns.items()}
    for role in ("task", "method"):
        if not texts[role] or len(texts[role]) > _LONGEST_NAME:
            raise _refused(file, f"line {number}: the {role} is empty or very long", "correct or remove the line")
    if texts["score"] in _MISSING:
        return None
    score, learnable = (_number(texts.get(role, "").removesuffix("%").strip()) for role in ("score", "learnable"))
    if score is None or score > 100:
        fault = f"line {number}: the score '{printable(texts['score'][:_LONGEST_NAME])}' is none from 0 to 100"
        raise _refused(file, fault, "correct the cell, or leave it empty")
    task, method = printable(texts["task"]), printable(texts["method"])
    return _Line(number, task, method, score, texts.get("repeat", ""), learnable)


def _number(text: str) -> float | None:
    """A number of at least 0; None for anything else."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _notes_on_units(lines: Sequence[_Line], factor: int) -> list[str]:
    if factor > 1:
        return ["No score is above 1: they are taken for fractions, and shown in percent."]
    low = [f"{line.method} on {line.task} (line {line.number})" for line in lines if 0 < line.score <= 1]
    return [f"At most 1 among scores in percent, a fraction? {first_few(low, _MOST_SHOWN)}."] if low else []


def _rows(file: Path, lines: Sequence[tuple[str, _Line]], factor: int) -> list[ScoreRow]:
    seen: dict[tuple[str, str, str], _Line] = {}
    scores: dict[str, dict[str, list[float]]] = {}
    learnable: dict[str, list[float]] = {}
    for key, line in lines:
        first = seen.setdefault((line.method, key, line.repeat), line)
        if first is not line:
            text = f"{line.method} on {line.task} stands in line {first.number} and in line {line.number}"
            raise _refused(file, text, "remove one of them, or add a column seed that tells them apart")
        scores.setdefault(line.method, {}).setdefault(key, []).append(factor * line.score)
        if line.learnable is not None:
            learnable.setdefault(line.method, []).append(line.learnable)
    if len(scores) > _MOST_METHODS:
        raise _refused(file, f"it has more than {_MOST_METHODS} methods", "give those that are to be compared")
    counts = {method: fmean(values) for method, values in learnable.items()}
    return [ScoreRow(method, method, method, each, learnable=counts.get(method)) for method, each in scores.items()]


def _refused(file: Path, fault: str, hint: str) -> InputError:
    return InputError(f"--results {printable(str(file))}: {fault}", hint=hint, kind="bad_scores")
