"""The real X-rays on which the baselines were first measured, where they are at hand."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from petlbench.audit import baselines
from petlbench.audit.baselines import run_baselines
from petlbench.audit.confounders import columns_of
from petlbench.audit.leaks import find_leaks
from petlbench.audit.scan import Scan, scan_images
from petlbench.core.catalog import Catalog
from petlbench.core.progress import Progress
from petlbench.data.dataset import open_dataset

XRAYS = Path(os.environ.get("PETLBENCH_XRAYS") or Path(__file__).parents[3] / "shared" / "data" / "covid_xray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not XRAYS.is_dir(), reason="the X-rays are not here; PETLBENCH_XRAYS may name their folder"),
]


@pytest.fixture(scope="module")
def xrays() -> Scan:
    return scan_images(open_dataset(str(XRAYS), catalog=Catalog(), data_root=XRAYS, settings={}), 2, Progress())


def two_classes(scan: Scan) -> Scan:
    """Pneumonia against no findings."""
    kept = [row for row, record in enumerate(scan.records) if scan.classes[record.label] != "covid19"]
    names = tuple(name for name in scan.classes if name != "covid19")
    records = (replace(r, label=names.index(scan.classes[r.label])) for r in (scan.records[row] for row in kept))
    return replace(scan, records=tuple(records), images=tuple(scan.images[row] for row in kept), classes=names)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (3, {"file": (0.797, 0.902), "pixels": (0.757, 0.894)}),
        (2, {"file": (0.818, 0.889), "grey levels": (0.692, 0.774), "pixels": (0.767, 0.843)}),
    ],
)
def test_the_baselines_are_what_was_measured_before(
    xrays: Scan, monkeypatch: pytest.MonkeyPatch, classes: int, expected: dict[str, tuple[float, float]]
) -> None:
    monkeypatch.setattr(baselines, "_TREES", 300)
    monkeypatch.setattr(baselines, "FOLDS", 5)
    scan = xrays if classes == 3 else two_classes(xrays)
    found = {one.name: one for one in run_baselines(scan, columns_of(scan), 0, 2, Progress())}
    for name, (accuracy, auc) in expected.items():
        assert found[name].accuracy == pytest.approx(accuracy, abs=0.02)
        assert found[name].auc == pytest.approx(auc, abs=0.02)


def test_the_two_pairs_are_found_and_no_other(xrays: Scan) -> None:
    leaks = find_leaks(xrays, [None] * len(xrays.records))
    assert [(pair.kind, *(Path(name).stem for name in pair.images)) for pair in leaks.pairs] == [
        ("bytes", "no_findings_0253", "no_findings_0254"),
        ("near", "covid19_0062", "covid19_0064"),
    ]
