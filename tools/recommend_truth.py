"""What the methods of an exhaustive study reach, and whether an interval holds it."""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot
from pathlib import Path
from statistics import fmean

from petlbench.metrics.classification import AUC
from petlbench.report.context import scored
from petlbench.results.table import load_results
from petlbench.statistics.comparison import Evidence

_Z = 1.96


class Truth:
    """Mean test scores, fractions, of the methods' winners.

    Args:
        folder: Folder of the exhaustive study: its runs that are no trials.
    """

    def __init__(self, folder: Path) -> None:
        records = [scored(run, run.method, "", AUC) for run in load_results(folder).runs if run.finished]
        known = [record for record in records if record is not None]
        scores: dict[str, list[float]] = {}
        for record in known:
            scores.setdefault(record.method, []).append(record.score)
        self.scores = {method: fmean(each) for method, each in scores.items()}
        self._evidence = Evidence(known, AUC)

    def held(self, differences: Mapping[str, Mapping[str, float]], chosen: str) -> tuple[float, float]:
        """Shares of intervals of differences to the chosen method that hold the true one.

        The true one is known from some test images and seeds only. The first share takes it as it is; the second one
        allows for its own standard error, by which it departs from what the interval is to hold.

        Args:
            differences: By method; with ``effect``, ``low`` and ``high``, fractions.
            chosen: The method that they are differences to.
        """
        plain, allowing = [], []
        for method, pair in differences.items():
            comparison = self._evidence.compare(method, chosen, "")
            if comparison is None:
                continue
            off = comparison.effect - pair["effect"]
            reach = pair["high"] - pair["effect"] if off > 0 else pair["effect"] - pair["low"]
            plain.append(abs(off) <= reach)
            allowing.append(abs(off) <= hypot(reach, _Z * (comparison.error or 0.0)))
        return fmean(plain), fmean(allowing)
