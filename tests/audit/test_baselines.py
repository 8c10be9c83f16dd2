"""Trivial baselines: each knows what it is given and nothing else; groups are kept together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from petlbench.audit.baselines import Baseline, run_baselines
from petlbench.audit.confounders import columns_of
from petlbench.audit.scan import Scan
from petlbench.core.progress import Progress

Make = Callable[..., Scan]
LABELS = [0, 1] * 30


def run(scan: Scan, progress: Progress | None = None) -> dict[str, Baseline]:
    found = run_baselines(scan, columns_of(scan), 0, 1, progress or Progress())
    return {one.name: one for one in found}


def auc(baseline: Baseline) -> float:
    assert baseline.auc is not None
    assert baseline.low is not None
    assert baseline.high is not None
    assert baseline.low <= baseline.auc <= baseline.high
    return baseline.auc


def test_by_chance_nothing_tells_the_class(scan: Make) -> None:
    sizes = np.random.default_rng(0).integers(900, 1100, 60).tolist()
    found = run(scan(LABELS, file_bytes=sizes))
    assert list(found) == ["file", "grey levels", "pixels", "metadata", "metadata but file size"]
    for name in ("file", "grey levels", "pixels", "metadata"):
        assert 0.2 < auc(found[name]) < 0.8
    assert found["metadata but file size"].auc is None
    assert "nothing" in found["metadata but file size"].refused


def test_only_metadata_does_not_look(scan: Make) -> None:
    assert [name for name, one in run(scan(LABELS)).items() if not one.uses_pixels] == [
        "metadata",
        "metadata but file size",
    ]


@pytest.mark.parametrize(
    ("given", "telling", "silent"),
    [
        ({"formats": ["PNG", "JPEG"] * 30}, {"metadata", "metadata but file size"}, {"file", "grey levels", "pixels"}),
        ({"sizes": [(64, 64), (64, 65)] * 30}, {"metadata", "metadata but file size"}, {"file", "pixels"}),
        ({"file_bytes": [1000, 2000] * 30}, {"file", "metadata"}, {"grey levels", "pixels"}),
        ({"means": [90.0, 140.0] * 30}, {"file", "grey levels"}, {"pixels"}),
        ({"extras": [{"site": "a"}, {"site": ""}] * 30}, {"metadata", "metadata but file size"}, {"file"}),
    ],
    ids=["format", "size", "bytes", "brightness", "missing site"],
)
def test_what_tells_the_class_is_found_by_those_who_are_given_it(
    scan: Make, given: dict[str, list[object]], telling: set[str], silent: set[str]
) -> None:
    found = run(scan(LABELS, **given))
    assert all(auc(found[name]) > 0.95 for name in telling)
    assert all(found[name].auc is None or auc(found[name]) < 0.8 for name in silent)


def test_three_classes(scan: Make) -> None:
    found = run(scan([0, 1, 2] * 20, file_bytes=[10, 20, 30] * 20))
    assert auc(found["metadata"]) == 1
    assert found["metadata"].accuracy == 1


def test_groups_are_not_recognised(scan: Make) -> None:
    """Twelve patients with ten images each of one file size and one class: by size one would know the patient."""
    patient = np.repeat(np.arange(12), 10)
    labels = (patient % 2).tolist()
    sizes = (1000 + 100 * np.random.default_rng(3).permutation(12)[patient]).tolist()
    alone = run(scan(labels, file_bytes=sizes))["metadata"]
    grouped = run(scan(labels, file_bytes=sizes, groups=[f"p{one}" for one in patient]))["metadata"]
    assert auc(alone) > 0.98
    assert auc(grouped) < 0.9


def test_small_classes_get_fewer_folds_and_none_is_said(scan: Make) -> None:
    steps: list[int] = []

    class Counting(Progress):
        def phase(self, name: str, total: int) -> None:
            steps.append(-total)

        def advance(self, count: int = 1) -> None:
            steps.append(count)

    assert auc(run(scan([0, 0, 1, 1], file_bytes=[1, 1, 9, 9]), Counting())["file"]) >= 0.5
    assert sum(steps) == 0
    assert steps[0] == -5 * 2
    for one in run(scan([0] * 9 + [1])).values():
        assert one.auc is None
        assert "cross-validated" in one.refused
    one_group = run(scan(LABELS, groups=["p" if label else f"q{row}" for row, label in enumerate(LABELS)]))
    assert one_group["file"].auc is None


def test_the_same_seed_gives_the_same_figures(scan: Make) -> None:
    made = scan(LABELS)
    assert run(made) == run(made)
