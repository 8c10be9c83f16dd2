"""The contract of a metric, on a right one and on wrong ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

GOOD = """
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from petlbench.core.entry import Card


@dataclass(frozen=True)
class Metric(Card):
    kind: ClassVar = "metric"
    direction: str
    compute: Callable
    contribution: Callable | None = None
    interval: Callable | None = None


def score(labels, logits):
    if len(labels) == 0:
        return None
    return float((logits.argmax(axis=1) == labels).mean())


def contribution(labels, logits):
    return (logits.argmax(axis=1) == labels) - score(labels, logits)


MINE = Metric(name="mine", title="Mine", direction="higher", compute=score, contribution=contribution)
"""

BROKEN = {
    "NaN": ("return None", "return float('nan')", "test_an_empty_split_has_none", "gives nan for 0 images"),
    "zero": ("return None", "return 0.0", "test_an_empty_split_has_none", "gives 0.0 for a split without images"),
    "percent": (".mean())", ".mean() * 100)", "test_it_is_a_finite_number", "which is no fraction: divide by 100"),
    "array": ("float((", "np.array((", "test_it_is_a_finite_number", "return a finite number, or None"),
    "order": (
        "== labels).mean()",
        "== labels)[: len(labels) // 2 + 1].mean()",
        "test_the_order_of_the_images_does_not_count",
        "for the same images in another order",
    ),
    "contribution": (
        "- score(labels, logits)",
        "* np.arange(len(labels))",
        "test_the_order_of_the_images_does_not_count",
        "an image contributes another number",
    ),
    "in place": (
        "    return float(",
        "    logits -= 1\n    return float(",
        "test_it_gives_the_same_each_time_and_changes_nothing",
        "it changes the labels or the logits that it is given",
    ),
    "chance": (
        "== labels).mean()",
        "== labels).mean() * np.random.rand()",
        "test_it_gives_the_same_each_time_and_changes_nothing",
        "for the same images: draw nothing",
    ),
    "direction": (
        'direction="higher"',
        'direction="lower"',
        "test_its_direction_is_that_of_a_perfect_classifier",
        "gives 1 for a perfect classifier and 0 for a wrong one, but its direction is 'lower'",
    ),
    "interval": (
        "contribution=contribution)",
        'interval=lambda *_: {"low": 2.0, "high": 3.0})',
        "test_its_interval_holds_it",
        "its interval is 2.0 to 3.0, but the score is",
    ),
}


Run = Callable[..., tuple[int, str]]


def test_a_right_metric_passes(tmp_path: Path, run: Run) -> None:
    (tmp_path / "my_metric.py").write_text(GOOD, encoding="utf-8")
    _, output = run("--petlbench-metric", "my_metric.py")
    assert "failed" not in output
    assert re.search(r"11 passed, 2 skipped", output), output


@pytest.mark.parametrize("fault", BROKEN)
def test_a_wrong_metric_fails_at_its_rule_in_words(fault: str, tmp_path: Path, run: Run) -> None:
    text, replacement, rule, words = BROKEN[fault]
    assert text in GOOD
    (tmp_path / "my_metric.py").write_text(GOOD.replace(text, replacement, 1), encoding="utf-8")
    _, output = run("--petlbench-metric", "my_metric.py")
    assert f"FAILED my_metric.py::MINE::{rule}[" in output, output
    assert words in output, output
