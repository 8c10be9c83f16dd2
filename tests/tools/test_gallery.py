"""The gallery: a page of a bundle, with a picture or a table of every report that the study can be shown as."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import petlbench as pb
from tests.report.stored import store_predicted, store_study
from tools.gallery import BUNDLE, PAGE, ROOT, STUDY, write_page


def test_the_page_shows_every_report_and_brings_the_bundle(tmp_path: Path) -> None:
    results, folder = tmp_path / "results", tmp_path / "gallery"
    runs = []
    for method, strength in (("full", 2.0), ("lora", 1.5)):
        for seed in (0, 1):
            run = store_predicted(results, method, "isic2018", seed, strength, title="ISIC 2018")
            runs.append({"method": method, "dataset": "isic2018", "seed": seed, "run_id": run.run_id})
    store_study(results, STUDY, [{**run, "status": "finished"} for run in runs])
    names = write_page(pb.pack(STUDY, tmp_path / BUNDLE, results=results).file, folder)
    assert {"table1", "tradeoff", "curves", "methods_paragraph", "claim"} <= set(names)
    page = (folder / PAGE).read_text(encoding="utf-8")
    assert "2 methods on ISIC 2018" in page
    assert pb.verify_pack(folder / BUNDLE).is_whole
    for name in names:
        assert f"petlbench report {name} --results {BUNDLE}" in page
    for picture in re.findall(r"\]\((\S+\.png)\)", page):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_bundle_that_is_shipped_is_whole() -> None:
    bundle = ROOT / "docs/gallery" / BUNDLE
    assert pb.verify_pack(bundle).is_whole
    runs = pb.load_results(bundle, STUDY).runs
    assert len(runs) == 135
    assert len({(run.method, run.split, run.seed) for run in runs}) == 135
