"""The pages: links that lead somewhere, and files on extension that are complete, short, and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import petlbench as pb
from petlbench.core.catalog import Catalog
from petlbench.data.dataset import open_dataset
from petlbench.metrics.classification import evaluate, load_metrics
from petlbench.report.formats import Document, ReportFormat
from petlbench.report.spec import ReportKind
from petlbench.study.executors.job import Event, ExecutorOptions, Job, open_executor

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

# Pages of the site that are made of the code; building it checks links to them.
MADE = re.findall(r'"(reference/\w+\.md)"', (ROOT / "tools/site/hooks.py").read_text(encoding="utf-8"))

PAGES = {
    "adding_a_metric.md": "GRADE_ERROR",
    "adding_a_dataset.md": "class Arrays",
    "reports.md": "COUNT",
    "executors.md": "class Mine",
}


def example(page: str, name: str) -> str:
    """The block of Python on a page that has a name in it."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    return next(block for block in blocks if name in block)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            if name in MADE:
                continue
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """A folder with the file of every page."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for page, name in PAGES.items():
        (folder / f"{Path(page).stem}.py").write_text(example(page, name), encoding="utf-8")
    for file, page, name in (
        ("focal", "adding_a_metric.md", "FOCAL"),
        ("stages", "adding_a_dataset.md", "class Stages"),
    ):
        (folder / f"{file}.py").write_text(example(page, name), encoding="utf-8")
    return Catalog([folder])


@pytest.mark.parametrize(
    ("page", "name"), [*PAGES.items(), ("adding_a_metric.md", "FOCAL"), ("adding_a_dataset.md", "class Stages")]
)
def test_an_example_is_short(page: str, name: str) -> None:
    assert len([line for line in example(page, name).splitlines() if line.strip()]) <= 30


def test_the_metric_is_computed(catalog: Catalog) -> None:
    metrics = load_metrics(catalog)
    scores = evaluate(np.array([0, 1, 2, 2]), np.eye(3)[[0, 2, 2, 0]], metrics)
    assert scores["grade_error"] == pytest.approx((0 + 0.5 + 0 + 1) / 4)


def test_the_loss_is_minimised(catalog: Catalog) -> None:
    loss = catalog.load("loss", "focal", pb.Loss)
    labels = torch.tensor([0, 1])
    poor, good = (loss.compute(logits, labels, 0.0, None) for logits in (torch.zeros(2, 2), 5 * torch.eye(2)))
    assert 0 < good < 1e-4 < poor


def test_the_reader_reads(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "cells.npz"
    images = np.random.default_rng(0).integers(0, 255, (6, 8, 8), dtype=np.uint8)
    np.savez(file, images=images, labels=np.arange(6) % 2)
    dataset = open_dataset(str(file), catalog=catalog, data_root=tmp_path, settings={})
    assert dataset.classes == ("0", "1")
    assert [record.label for record in dataset.records] == [0, 1, 0, 1, 0, 1]
    assert (np.asarray(dataset.open(dataset.records[3]))[..., 0] == images[3]).all()


CARD = """
title = "Stages"
modality = "noise"
task = "staged"
classes = ["stage 1", "stage 2", "stage 3", "stage 4"]
licence = "CC0"
version = 1
split = "random"
grouping = "none"
[reader]
kind = "csv"
"""


def test_the_task_type_reads_labels(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "staged.toml").write_text(CARD)
    folder = tmp_path / "data/staged"
    folder.mkdir(parents=True)
    labels = ["stage 1", "stage 1-2", "stage 2-3", "stage 4"]
    for number in range(4):
        Image.new("RGB", (4, 4), (60 * number,) * 3).save(folder / f"{number}.png")
    rows = [f"{number}.png,{label}" for number, label in enumerate(labels)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *rows]))
    settings = {"catalog": catalog, "data_root": tmp_path / "data", "settings": {}}
    dataset = open_dataset(str(tmp_path / "staged.toml"), **settings)
    assert [record.label for record in dataset.records] == [0, 1, 2, 3]


def test_the_report_kind_and_the_format_are_found(catalog: Catalog) -> None:
    assert catalog.load("report_kind", "count", ReportKind).title == "Runs of every method"
    form = catalog.load("format", "lines", ReportFormat)
    assert form.text(Document("count", "Runs")) == ""


def test_the_executor_tells_what_it_does(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = open_executor("mine", ExecutorOptions(), catalog)
    events: list[object] = []
    module = __import__("sys").modules[type(executor).__module__]
    monkeypatch.setattr(module, "perform", lambda job, on: "ended")

    def note(job: Job, event: Event) -> None:
        events.append(event)

    executor.run(iter([None, "job"]), note)  # type: ignore[list-item, arg-type]
    assert [type(event).__name__ for event in events] == ["Started", "str"]
