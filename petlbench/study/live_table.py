"""A study as it goes on: a live table on a terminal, one line an ended run everywhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from petlbench.core.progress_bars import ShownProgress, StandardError
from petlbench.core.text import printable, shown
from petlbench.core.units import percent, seconds
from petlbench.results.stored import dataset_names
from petlbench.study.status import RunState, StudyObserver, StudyStatus

# Lines of a terminal around the table: its head, the running runs, so many at most, and the last line.
_AROUND = _NAMED = 8


class LiveTable(StudyObserver):
    """Shows how far the runs of a study are, on standard error or another console."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or StandardError()
        self._status = StudyStatus([])
        self._at_once = 1
        self._shown = ExitStack()
        self._bars: ShownProgress | None = None

    def __enter__(self) -> Self:
        """Be ready for a study."""
        return self

    def __exit__(self, *error: object) -> None:
        """Take the table away."""
        self._shown.close()

    def begin(self, status: StudyStatus, at_once: int) -> None:
        """Start to draw the table of a study."""
        self._shown.close()
        self._status, self._at_once, self._bars = status, at_once, None
        if self._console.is_terminal:
            table = Live(get_renderable=self._draw, console=self._console, refresh_per_second=2, transient=True)
            self._shown.enter_context(table)

    def phase(self, name: str, total: int) -> None:
        """Show a bar in the place of the table, whose runs have ended."""
        if self._bars is None:
            self._shown.close()
            self._bars = self._shown.enter_context(ShownProgress())
        self._bars.phase(name, total)

    def advance(self, count: int = 1) -> None:
        """Move the bar."""
        if self._bars is not None:
            self._bars.advance(count)

    def changed(self, state: RunState) -> None:
        """Say one line of a run that has ended."""
        if not state.is_open:
            done = sum(not state.is_open for state in self._status.states)
            outcome = state.outcome
            if state.status == "finished" and state.result is not None:
                auc = percent(state.result.metrics.get("test", {}).get("auc"))
                outcome = f"finished, test AUC {auc} %, {seconds(state.result.timing.get('total'))}"
            self.say(f"[{done}/{len(self._status.states)}] {state.title}: {outcome}")

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(shown(text), markup=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        counted = ", ".join(f"{number} {status}" for status, number in sorted(self._status.counts().items()))
        remaining, unknown = self._status.seconds_left(self._at_once)
        left = "time left unknown until a run is finished" if unknown else "nothing left"
        if remaining is not None:
            left = f"about {seconds(remaining)} left" + (f", and {unknown} runs of unknown length" if unknown else "")
        last = f"{len(self._status.states)} runs: {counted}; {left}"
        return Group(self._table(), *self._running(), Text(last))

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("method")
        for name in dataset_names(self._status.datasets).values():
            table.add_column(Text(printable(name)), justify="right")
        rows = self._methods_shown()
        for method in rows:
            table.add_row(
                Text(printable(method)),
                *(_counted(self._status.cell(method, dataset)) for dataset in self._status.datasets),
            )
        if hidden := len(self._status.methods) - len(rows):
            table.caption = f"and {hidden} methods more"
        return table

    def _methods_shown(self) -> list[str]:
        """All methods; where the terminal has fewer lines, those at work first and the finished ones last."""
        methods, room = self._status.methods, max(3, self._console.height - _AROUND)
        if len(methods) <= room:
            return methods
        urgent = set(sorted(methods, key=self._urgency)[:room])
        return [method for method in methods if method in urgent]

    def _urgency(self, method: str) -> int:
        cells = (self._status.cell(method, dataset) for dataset in self._status.datasets)
        counts = self._status.counts(list(chain(*cells)))
        return 0 if counts["running"] else 1 if counts["waiting"] else 2

    def _running(self) -> list[Text]:
        running = [state for state in self._status.states if state.status == "running"]
        stages = [f"epoch {state.epoch} of {state.epochs}" if state.epoch else state.phase for state in running]
        lines = [Text(printable(f"{state.title}: {stage}")) for state, stage in zip(running, stages, strict=True)]
        return [*lines[:_NAMED], Text(f"and {len(running) - _NAMED} more")] if len(running) > _NAMED else lines


def _counted(states: Sequence[RunState]) -> Text:
    counts = Counter(state.status for state in states)
    if counts["unsupported"] == len(states):
        return Text("–", style="dim")
    failed = sum(counts[status] for status in ("failed", "oom", "timeout"))
    text = Text(f"{counts['finished']}/{len(states)}", style="green" if counts["finished"] == len(states) else "")
    if counts["running"]:
        text.append(f" +{counts['running']}", style="bold")
    if failed:
        text.append(f" ✗{failed}", style="red")
    return text
