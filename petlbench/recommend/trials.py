"""Recorded trials of many methods on many tasks, and what their winners reached on the test images."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.core.user_files import read_bytes
from petlbench.results.table import load_results, load_trials

if TYPE_CHECKING:
    import pandas as pd


_LIMIT = 1 << 30
_TRIALS = ("task", "method", "lr", "weight_decay", "settings", "val_top1")
_FINALS = ("task", "method", "test_last")
# What makes own runs of one task.
_TASK = (
    "dataset", "split", "shots", "train_fraction", "backbone", "image_size", "training.epochs", "training.batch_size",
)  # fmt: skip


class Candidate(NamedTuple):
    """A method with the values of all that is searched: what one trial trains.

    Args:
        method: Name of the method.
        values: Learning rate, weight decay and the method's own settings, as (name, value) pairs by name.
    """

    method: str
    values: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, method: str, lr: float, weight_decay: float, settings: dict[str, Any]) -> Candidate:
        """Take a method's values together."""
        return cls(method, tuple(sorted({**settings, "lr": lr, "weight_decay": weight_decay}.items())))


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
        InputError: When the file cannot be read, lacks a column, or a cell is none.
    """
    frame = _frame(file, _TRIALS)
    if "val_loss" not in frame:
        frame = frame.assign(val_loss=math.nan)
    numbers = {name: _numbers(frame, name, file) for name in ("lr", "weight_decay", "val_top1")}
    numbers["val_loss"] = _numbers(frame, "val_loss", file, optional=True)
    tasks: dict[str, dict[Candidate, tuple[float, float]]] = {}
    for row, (task, method, text) in enumerate(zip(frame["task"], frame["method"], frame["settings"], strict=True)):
        lr, weight_decay, score, loss = (float(column[row]) for column in numbers.values())
        candidate = Candidate.of(str(method), lr, weight_decay, _settings(text, row, file))
        tasks.setdefault(str(task), {}).setdefault(candidate, (score, loss))
    return {
        task: RecordedTask(tuple(trials), *np.array(list(trials.values()), dtype=np.float64).T)
        for task, trials in sorted(tasks.items())
    }


def read_finals(file: Path) -> dict[str, dict[str, float]]:
    """Return by task and method the top-1 on the test images, percent, of each method's winner.

    Args:
        file: CSV with the columns ``task, method, test_last``.

    Raises:
        InputError: When the file cannot be read, lacks a column, or a cell is none.
    """
    frame = _frame(file, _FINALS)
    reached: dict[str, dict[str, float]] = {}
    for task, method, score in zip(frame["task"], frame["method"], _numbers(frame, "test_last", file), strict=True):
        reached.setdefault(str(task), {})[str(method)] = float(score)
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
    for run in [*load_results(output).runs, *load_trials(output).runs]:
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


def _frame(file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    content = read_bytes(file, what="table of trials", limit=_LIMIT)
    try:
        frame = pd.read_csv(BytesIO(content))
    except (ValueError, pd.errors.ParserError) as error:
        message = f"{file} is no table: {printable(str(error))}"
        raise InputError(message, hint="give a CSV file with a header", kind="bad_trials") from error
    if missing := [name for name in columns if name not in frame]:
        message = f"{file} has no column '{missing[0]}'"
        raise InputError(message, hint=f"it needs the columns {', '.join(columns)}", kind="bad_trials")
    if frame.empty:
        raise InputError(f"{file} has no rows", hint="give recorded trials", kind="bad_trials")
    return frame


def _numbers(frame: pd.DataFrame, column: str, file: Path, *, optional: bool = False) -> NDArray[np.float64]:
    import pandas as pd

    numbers = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers) & ~(frame[column].isna().to_numpy() & optional))
    if len(bad):
        value = printable(str(frame[column].iloc[bad[0]]))
        message = f"{file}, row {bad[0] + 1}: {column} = '{value}' is no number"
        raise InputError(message, hint="correct the cell, or leave the row out", kind="bad_trials")
    return numbers


def _settings(text: Any, row: int, file: Path) -> dict[str, Any]:
    try:
        values = json.loads(text) if isinstance(text, str) and text.strip() else {}
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or any(isinstance(value, dict | list) for value in values.values()):
        message = f"{file}, row {row + 1}: the settings {printable(str(text))[:80]} are no plain JSON object"
        raise InputError(message, hint='write them as {"rank": 8}', kind="bad_trials")
    return values
