"""The page stands alone, says what is wrong, and takes no name for markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from petlbench.audit.audit import audit
from petlbench.audit.page import check_page_file, write_page
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset


class Reader(HTMLParser):
    """Collects tags, addresses and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(
    draw: Callable[..., Image.Image], save: Callable[..., Path], opened: Callable[..., Dataset], tmp_path: Path
) -> str:
    """The page of a folder whose names are markup and formulas, with a duplicate under two labels."""
    for number in range(12):
        save(draw(number or 11), f"{('<b>bad', 'x$_{$ & y')[number % 2]}/<i>{number}.png")
    save(draw(1), "<b>bad/cut.png").write_bytes(b"<script>")
    dataset = opened()
    write_page(tmp_path / "page.html", audit(dataset, None, 0, 1, Progress()), dataset)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_names_are_text_and_nothing_is_loaded(page: str) -> None:
    read = Reader()
    read.feed(page)
    assert not {"b", "i", "script", "link", "iframe"} & set(read.tags)
    for text in ("<b>bad", "x$_{$ & y", "<i>11.png", "cut.png", "cannot be decoded"):
        assert text in read.text
    assert read.tags.count("img") == 2
    assert read.tags.count("svg") >= 2
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in read.addresses)
    assert "http" not in re.sub(r'(xmlns(:\w+)?|rdf:resource)="[^"]*"', "", page.partition("<svg")[0])


def test_it_is_readable_in_the_dark(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert figures
    for figure in figures:
        assert "currentColor" in figure
        assert "#010203" not in figure
        assert "#000000" not in figure.replace("fill: #000000", "")


def test_nothing_half_written_stays(page: str, tmp_path: Path) -> None:
    assert page.startswith("<!doctype html>")
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ""] == ["page.html"]


@pytest.mark.parametrize(("name", "kind"), [("page.pdf", "bad_setting"), ("nowhere/page.html", "not_writable")])
def test_a_place_that_cannot_be_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    with pytest.raises(InputError) as caught:
        check_page_file(tmp_path / name)
    assert caught.value.kind == kind
    assert caught.value.hint
