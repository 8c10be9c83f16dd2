"""The real X-rays on which the baselines were first measured, where they are at hand."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from petlbench.audit import baselines
from petlbench.audit.baselines import run_baselines
from petlbench.audit.leaks import find_leaks
from petlbench.audit.metadata_columns import columns_of
from petlbench.audit.scan import Gallery, see
from petlbench.core.catalog import Catalog
from petlbench.core.progress import Progress
from petlbench.data.dataset import open_dataset

XRAYS = Path(os.environ.get("PETLBENCH_XRAYS") or Path(__file__).parents[3] / "shared" / "data" / "covid_xray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not XRAYS.is_dir(), reason="the X-rays are not here; PETLBENCH_XRAYS may name their folder"),
]


@pytest.fixture(scope="module")
def xrays() -> Gallery:
    return see(open_dataset(str(XRAYS), catalog=Catalog(), data_root=XRAYS, settings={}), 2, Progress())


def two_classes(gallery: Gallery) -> Gallery:
    """Pneumonia against no findings."""
    kept = [row for row, record in enumerate(gallery.records) if gallery.classes[record.label] != "covid19"]
    names = tuple(name for name in gallery.classes if name != "covid19")
    records = (replace(r, label=names.index(gallery.classes[r.label])) for r in (gallery.records[row] for row in kept))
    return replace(gallery, records=tuple(records), sights=tuple(gallery.sights[row] for row in kept), classes=names)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (3, {"file": (0.797, 0.902), "pixels": (0.757, 0.894)}),
        (2, {"file": (0.818, 0.889), "grey levels": (0.692, 0.774), "pixels": (0.767, 0.843)}),
    ],
)
def test_the_baselines_are_what_was_measured_before(
    xrays: Gallery, monkeypatch: pytest.MonkeyPatch, classes: int, expected: dict[str, tuple[float, float]]
) -> None:
    monkeypatch.setattr(baselines, "_TREES", 300)
    monkeypatch.setattr(baselines, "FOLDS", 5)
    gallery = xrays if classes == 3 else two_classes(xrays)
    found = {one.name: one for one in run_baselines(gallery, columns_of(gallery), 0, 2, Progress())}
    for name, (accuracy, auc) in expected.items():
        assert found[name].accuracy == pytest.approx(accuracy, abs=0.02)
        assert found[name].auc == pytest.approx(auc, abs=0.02)


def test_the_two_pairs_are_found_and_no_other(xrays: Gallery) -> None:
    leaks = find_leaks(xrays, [None] * len(xrays.records))
    assert [(pair.kind, *(Path(name).stem for name in pair.images)) for pair in leaks.twins] == [
        ("bytes", "no_findings_0253", "no_findings_0254"),
        ("near", "covid19_0062", "covid19_0064"),
    ]
