"""The table of a study as MLflow keeps it: accuracy, parameters, memory, PPE and PME by method and dataset."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from petlbench.results.result import Result
from petlbench.results.scalars import final_metrics

__all__ = ["as_csv", "as_markdown", "cells", "is_one_setting", "spread", "study_rows"]

# Column, the figure that it is the mean of, and whether its deviation stands beside it.
_FIGURES = (
    ("test_auc", "test_auc", True),
    ("test_accuracy", "test_accuracy", True),
    ("learnable_parameters", "learnable_parameters", False),
    ("learnable_ratio", "learnable_ratio", False),
    ("memory_allocated", "memory_allocated", False),
    ("ppe", "ppe", True),
    ("pme", "pme", True),
    ("seconds", "seconds_total", False),
)


def cells(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    """The results by method and dataset, in the order in which these come first."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        found.setdefault((result.config.method, result.config.dataset), []).append(result)
    return found


def is_one_setting(results: Sequence[Result]) -> bool:
    """Whether runs differ in nothing but their seed, so that a mean over them means something."""
    return len({result.config.model_copy(update={"seed": 0}).digest for result in results}) <= 1


def spread(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (over n − 1) of the values that are there.

    Returns:
        None for the mean of no value, and for the deviation of fewer than two.
    """
    known = [value for value in values if value is not None]
    return (fmean(known) if known else None), (stdev(known) if len(known) > 1 else None)


def study_rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """The table's rows: one for each method and dataset of which a run has finished.

    A cell whose runs differ in more than their seeds has no means, and memory of several sources has none either.

    Args:
        results: The results of a study.

    Returns:
        Values by column, the same columns in every row: ``method``, ``dataset``, ``seeds`` (finished runs),
        ``unfinished`` (other ones), ``memory_source``, and mean (and ``…_std``) of figures: scores are fractions,
        memory is bytes, time seconds.
    """
    found = []
    for (method, dataset), members in cells(results).items():
        finished = [result for result in members if result.status == "finished"]
        if finished:
            counts = {"seeds": len(finished), "unfinished": len(members) - len(finished)}
            sources = sorted({result.memory.source for result in finished if result.memory is not None})
            figures = _figures(finished, one_source=len(sources) == 1)
            found.append(
                {"method": method, "dataset": dataset, **counts, **figures, "memory_source": " ".join(sources)}
            )
    return found


def _figures(finished: Sequence[Result], *, one_source: bool) -> dict[str, float | None]:
    comparable = is_one_setting(finished)
    known = [final_metrics(result) if comparable else {} for result in finished]
    row: dict[str, float | None] = {}
    for column, figure, with_deviation in _FIGURES:
        told = one_source or not figure.startswith("memory")
        mean, deviation = spread(metrics.get(figure) if told else None for metrics in known)
        row |= {column: mean, f"{column}_std": deviation} if with_deviation else {column: mean}
    return row


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header; an empty field where there is no value."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table, with a dash where there is no value."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "\\|")
