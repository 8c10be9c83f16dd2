"""The report of an audit: a page that stands alone, takes no name for markup and shows pairs; and other formats."""

from __future__ import annotations

import csv
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from petlbench.audit import baselines
from petlbench.audit.audit import audit
from petlbench.core.catalog import Catalog
from petlbench.core.progress import Progress
from petlbench.data.dataset import open_dataset
from petlbench.report.formats import Document
from petlbench.report.kinds.audit import audit_document
from tests.audit.conftest import draw, save  # noqa: F401 - fixtures


class Reader(HTMLParser):
    """Collects tags, addresses and text of a page, without its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["script"]:
            self.text += data


@pytest.fixture
def document(
    draw: Callable[..., Image.Image],  # noqa: F811
    save: Callable[..., Path],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Document:
    """The audit of a folder whose names are markup and formulas, with a duplicate under two labels."""
    monkeypatch.setattr(baselines, "_TREES", 8)
    monkeypatch.setattr(baselines, "FOLDS", 3)
    for number in range(12):
        save(draw(number or 11), f"{('<b>bad', 'x$_{$ & y')[number % 2]}/<i>{number}.png")
    save(draw(1), "<b>bad/cut.png").write_bytes(b"<script>")
    dataset = open_dataset(str(tmp_path / "set"), catalog=Catalog(), data_root=tmp_path, settings={})
    return audit_document(audit(dataset, None, 0, 1, Progress()), dataset)


def test_names_are_text_and_nothing_is_loaded(document: Document) -> None:
    read = Reader()
    read.feed(document.to_html())
    assert not {"b", "i", "link", "iframe"} & set(read.tags)
    for text in ("<b>bad", "x$_{$ & y", "<i>11.png", "cut.png", "cannot be decoded"):
        assert text in read.text
    assert read.tags.count("img") == 2 + 2 * 4  # a pair, and four images of each class
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in read.addresses)


def test_it_is_readable_in_the_dark(document: Document) -> None:
    assert "prefers-color-scheme: dark" in document.to_html()


@pytest.mark.parametrize("suffix", [".md", ".tex", ".csv", ".json", ".png", ".pdf"])
def test_it_is_written_in_every_format(document: Document, tmp_path: Path, suffix: str) -> None:
    files = document.save(tmp_path / f"audit{suffix}")
    assert all(file.stat().st_size > 0 for file in files)
    assert {file.suffix for file in files} == {suffix} | ({".pdf"} if suffix == ".tex" else set())


def test_tables_hold_numbers(document: Document, tmp_path: Path) -> None:
    document.save(tmp_path / "audit.csv")
    with (tmp_path / "audit-baselines.csv").open(encoding="utf-8") as stream:
        rows = {row["baseline"]: row for row in csv.DictReader(stream)}
    assert 1 <= float(rows["pixels"]["auc_low"]) <= float(rows["pixels"]["auc"]) <= 100
    assert [figure.kind for figure in document.figures][:2] == ["intervals", "bars"]


def test_titles_begin_as_sentences_do(document: Document) -> None:
    titles = [document.title, *(each.title for each in (*document.tables, *document.figures))]
    assert len(titles) > 5
    assert [title for title in titles if title[0].islower()] == []


def test_it_says_first_what_it_comes_to_and_what_could_hide(document: Document) -> None:
    assert document.verdict.startswith("A table on this dataset and split should be rejected: ")
    tables = {table.key: table for table in document.tables}
    hidden = {row.key: row.cells["could hide"].text for row in tables["checks"].rows}
    assert hidden["groups"] == "images of one patient on two sides, any number of them"
    assert hidden["class told by pixels"].startswith("12 images: an AUC of up to ")
    assert {row.key for row in tables["next"].rows} >= {"missing_groups", "unreadable"}
    assert document.settings["date"]
