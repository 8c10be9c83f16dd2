"""When a dataset is marked: by the lower bound, and only by baselines that do not look."""

from __future__ import annotations

import pytest

from petlbench.audit.baselines import Baseline
from petlbench.audit.findings import find
from petlbench.audit.leaks import Leaks

NOTHING = Leaks((), (), {}, ())


def baseline(name: str, low: float | None) -> Baseline:
    if low is None:
        return Baseline(name, "things", True, refused="no choice")
    return Baseline(name, "things", True, low + 0.02, low, min(1.0, low + 0.04), 0.9)


@pytest.mark.parametrize(
    ("name", "low", "marked"),
    [
        ("metadata", 0.91, ["shortcut"]),
        ("metadata", 0.9, []),
        ("metadata", 0.88, []),
        ("metadata", None, []),
        ("pixels", 0.91, ["easy"]),
        ("file", 0.99, []),
        ("grey levels", 0.99, []),
    ],
)
def test_the_lower_bound_marks(name: str, low: float | None, marked: list[str]) -> None:
    assert [finding.kind for finding in find(NOTHING, [baseline(name, low)], {})] == marked


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([("metadata but file size", 0.5)], "through the file size"),
        ([("metadata but file size", None)], "through the file size"),
        ([("metadata but file size", 0.95)], "without the file size too"),
        ([], "without the file size too"),
    ],
)
def test_a_shortcut_says_whether_the_file_size_is_needed(others: list[tuple[str, float | None]], said: str) -> None:
    (finding,) = find(NOTHING, [baseline("metadata", 0.95), *(baseline(*other) for other in others)], {})
    assert said in finding.text
    assert finding.grave


def test_grave_things_come_first() -> None:
    found = find(NOTHING, [baseline("pixels", 0.95)], {"x.png": "cut off"})
    assert [(finding.kind, finding.grave) for finding in found] == [("unreadable", True), ("easy", False)]
