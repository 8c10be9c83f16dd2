"""A sweep as it goes on: one line a trial on standard error, and a bar on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from petlbench.core.progress_bars import ShownProgress
from petlbench.core.units import params_text
from petlbench.sweep.search import Search, TrialFacts
from petlbench.sweep.sweep import SweepObserver

__all__ = ["TrialLines"]


class TrialLines(ShownProgress, SweepObserver):
    """Says of each trial what it tried, what came of it, and which is the best so far."""

    def __init__(self) -> None:
        super().__init__()
        self._best: TrialFacts | None = None

    def begin(self, search: Search, trials: Sequence[TrialFacts]) -> None:
        """Show a bar for the trials of a search."""
        self._best, count = None, len(search.points)
        for trial in trials:
            self._compare(search, trial)
        self.phase(search.title, count)
        self.advance(len(trials))
        self.say(f"{search.title}: {count} trials, {len(trials)} of them done before; {search.card.title}")

    def trial(self, search: Search, trial: TrialFacts) -> None:
        """Print one line of a trial that ended."""
        self._compare(search, trial)
        self.advance()
        outcome = f"{search.card.objective} {trial.value:.4f}" if trial.value is not None else trial.status
        why = f" ({trial.error})" if trial.error else ""
        best = f"; best {self._best.value:.4f}, trial {self._best.number}" if self._best is not None else ""
        self.say(f"trial {trial.number} of {search.title}: {params_text(trial.params)}: {outcome}{why}{best}")

    def _compare(self, search: Search, trial: TrialFacts) -> None:
        if trial.value is None:
            return
        value = self._best.value if self._best is not None else None
        is_better = value is None or (trial.value < value if search.card.minimises else trial.value > value)
        self._best = trial if is_better else self._best
