"""Progress bars on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from petlbench.core.progress import Progress
from petlbench.core.text import shown


class StandardError(Console):
    """Standard error, to which nothing more is written once nobody reads it: who writes has work to end."""

    def __init__(self) -> None:
        super().__init__(file=sys.stderr, highlight=False)

    def on_broken_pipe(self) -> None:
        """Fall silent, where rich would end the process."""
        self.quiet = True
        # What is still in the stream's buffer goes nowhere, and what others write there too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def shown_progress(visible: bool) -> AbstractContextManager[Progress]:
    """Bars where they are to be shown, else nothing."""
    return ShownProgress() if visible else nullcontext(Progress())


class ShownProgress(Progress):
    """Draws one bar for the phase under way on a terminal, and one line an epoch everywhere."""

    def __init__(self) -> None:
        self._console = StandardError()
        self._bars = Bars(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            _SpeedColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not (self._console.is_terminal or (self._console.is_jupyter and find_spec("ipywidgets"))),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Start to draw."""
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Take the bar away."""
        self._bars.stop()

    def phase(self, name: str, total: int) -> None:
        """Show a new bar in the place of the old one."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(name, total=total)

    def advance(self, count: int = 1) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.advance(self._task, count)

    def epoch(self, entry: Mapping[str, Any], score: str) -> None:
        """Print one line."""
        self.say(", ".join(filter(None, (f"epoch {entry['epoch']}: training loss {entry['train_loss']:.4f}", score))))

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(shown(text), markup=False, soft_wrap=True)


class _SpeedColumn(ProgressColumn):
    """How many images, or whatever is counted, are done in a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")
