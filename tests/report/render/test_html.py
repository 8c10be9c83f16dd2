"""The page stands alone, takes no name for markup, and holds every run."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petlbench.report.document import Cell, Column, Row, Table
from petlbench.report.formats import Document
from petlbench.report.look import Look
from petlbench.report.render import html_page
from petlbench.report.render.html.runs import (
    confusion_figures,
    curve_figures,
    describe_runs,
    group_runs,
    in_order,
    run_figures,
)
from petlbench.report.render.html_page import as_json, pack, rounded
from tests.report.demo import DATASETS, HOSTILE, METHODS, demo_document, demo_run

PLAIN = Look()
VOID = {"meta", "br", "hr", "img", "input", "link", "use", "path"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


class Reader(HTMLParser):
    """Collects tags, addresses, texts and scripts, and elements that are closed in the wrong order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.scripts: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.last = dict(attrs).get("id") or "code"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[self.last] = self.scripts.get(self.last, "") + data
        else:
            self.text += data


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a report whose first method is markup."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    demo_document(first_title=HOSTILE).save(file)
    assert [one.name for one in file.parent.iterdir()] == ["page.html"]
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(text: str) -> Reader:
    return Reader(text)


def test_the_page_is_well_formed_and_names_are_text(read: Reader) -> None:
    assert read.wrong == []
    assert read.open == []
    assert read.tags.count("script") == 4
    assert read.text.count(HOSTILE) >= 3
    assert not [name for name, _ in read.attributes if name.startswith("on")]


def test_the_page_asks_for_nothing(read: Reader) -> None:
    addresses = [value for name, value in read.attributes if name in {"src", "href", "xlink:href", "action", "data"}]
    assert all(address.startswith("#") for address in addresses)
    assert "link" not in read.tags
    assert "default-src 'none'" in dict(read.attributes)["content"] or any(
        "default-src" in v for _, v in read.attributes
    )
    assert not re.search(r"@import|url\((?!#)", read.text)


def test_tables_are_complete_without_any_script(read: Reader) -> None:
    for words in ("88.2 ± 1.2", "23,128", "out of memory (3 of 3 runs)", "32x32 pixels", "not separable", "few"):
        assert words in read.text
    assert read.tags.count("table") == 2


def test_data_and_details_hold_every_run(read: Reader) -> None:
    document = demo_document(first_title=HOSTILE)
    data = json.loads(read.scripts["data"])
    assert len(data["runs"]["rows"]) == len(METHODS) * len(DATASETS) * 3
    assert {row[0] for row in data["runs"]["rows"]} >= {HOSTILE, "FPT"}
    details = json.loads(read.scripts["details"])
    runs = [run for chunk in details["chunks"] for run in json.loads(unpacked(chunk))]
    shown = in_order(document.runs, document.look)
    assert len(shown) == len(document.runs)
    assert [run["run_id"] for run in runs] == [run["run_id"] for run in shown]
    assert all(run["environment"] == one["environment"] for run, one in zip(runs, shown, strict=True))
    epochs = [len(run["curve"].get("epoch", [])) for run in runs]
    assert epochs == [len(run["curve"]) for run in shown]
    assert "Plotly" in unpacked(read.scripts["plotly"])


def test_runs_stand_in_the_order_of_their_methods_and_details_with_them(read: Reader) -> None:
    look = Look.of()
    runs = in_order([demo_run(method, DATASETS[0], 0) for method in reversed(METHODS)], look)
    places = [look.place(run["config"]["method"]) for run in runs]
    assert places == sorted(places)
    assert len(set(places)) > 1
    names = [row[-1] for row in json.loads(read.scripts["data"])["runs"]["rows"]]
    packed = json.loads(read.scripts["details"])["chunks"]
    details = [run for chunk in packed for run in json.loads(gzip.decompress(base64.b64decode(chunk)))]
    assert names == [run["run_id"] for run in details]


def test_negative_numbers_have_the_minus_of_the_figures_and_long_words_a_width() -> None:
    cells = {"gap": Cell(-1.25, "-1.25", -2.0, -0.5), "why": Cell(text="a text that is longer than a few words")}
    columns = [Column("gap", "gap"), Column("why", "why", numeric=False)]
    table = Table("main", "Main", columns, [Row("a", "a-1 method", cells)])
    page = html_page.render(Document("mine", "Mine", [table], verdict="-5.6 points"))
    assert '>−1.25 <small class="interval">−2.00 to −0.50</small></td>' in page
    assert '<p class="verdict">−5.6 points</p>' in page
    assert '<td class="words">a text' in page
    assert ">a-1 method<" in page


def test_the_same_report_makes_the_same_page(text: str, tmp_path: Path) -> None:
    demo_document(first_title=HOSTILE).save(tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise OSError("disk full")

    monkeypatch.setattr(html_page, "_plotly", fail)
    with pytest.raises(OSError, match="disk full"):
        Document("empty", "Empty").save(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_report_without_runs_and_figures_is_a_page(tmp_path: Path) -> None:
    replace(demo_document(), runs=[], figures=[]).save(tmp_path / "page.html")
    read = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert read.wrong == []
    assert json.loads(read.scripts["data"])["explore"] == []


@settings(max_examples=50)
@given(JSON)
def test_json_in_a_page_ends_no_script_and_is_read_back(value: Any) -> None:
    text = as_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


def test_what_is_packed_is_the_same_each_time_and_read_back() -> None:
    assert pack("größe " * 100) == pack("größe " * 100)
    assert unpacked(pack("größe " * 100)) == "größe " * 100


def test_numbers_are_rounded_and_what_json_has_not_is_none() -> None:
    assert rounded({"a": (0.123456789, float("nan"), float("inf"), 10**12, None, Path("x"))}) == {
        "a": [0.123457, None, None, 10**12, None, "x"]
    }


def test_runs_of_one_setting_are_one_group_and_others_say_what_differs() -> None:
    runs = [demo_run("lora", "ddsm", seed) for seed in range(3)] + [with_lr(demo_run("lora", "ddsm", 0), 0.01)]
    groups = group_runs(runs, PLAIN)
    assert [(group.title, len(group.runs)) for group in groups] == [("lora (lr 0.001)", 3), ("lora (lr 0.01)", 1)]
    assert {column["title"] for column in describe_runs(runs, PLAIN)["columns"]} >= {"lr", "method", "test AUC, %"}


def test_failed_runs_are_rows_but_in_no_group() -> None:
    runs = [demo_run("full", "ddsm", 0), demo_run("full", "covid", 0)]
    assert [row[3] for row in describe_runs(runs, PLAIN)["rows"]] == ["oom", "finished"]
    assert [group.dataset for group in group_runs(runs, PLAIN)] == ["COVID"]


def test_memory_of_two_sources_is_never_in_one_plot() -> None:
    runs = [demo_run(method, dataset, 0) for method in ("lora", "fpt") for dataset in ("ddsm", "covid")]
    runs[0]["memory"]["source"] = "cpu"
    figures = run_figures(group_runs(runs, PLAIN), PLAIN)
    assert sorted(figure.title for figure in figures) == [
        "COVID, memory: cuda",
        "DDSM, memory: cpu",
        "DDSM, memory: cuda",
    ]


def test_an_average_needs_every_dataset() -> None:
    figures = run_figures(group_runs(demo_document().runs, PLAIN), PLAIN)
    average = figures[0]
    assert average.title == "average of 4 datasets"
    assert {series.key for series in average.series} == set(METHODS) - {"full", "vpt"}
    assert "full, vpt" in average.caption


def test_curves_have_a_band_over_seeds_and_matrices_are_summed() -> None:
    groups = group_runs([demo_run("fpt", "ddsm", seed) for seed in range(3)], PLAIN)
    curve = curve_figures(groups)[0].series[0].values
    assert all(
        low <= mean <= high
        for low, mean, high in zip(curve["val_auc_low"], curve["val_auc"], curve["val_auc_high"], strict=True)
    )  # type: ignore[operator]
    matrix = confusion_figures(groups)[0].series[0]
    wanted = sum(run.document["metrics"]["test"]["confusion_matrix"][0][0] for group in groups for run in group.runs)
    assert matrix.values["0"][0] == wanted
    assert list(matrix.labels) == ["benign", "malignant", "normal"]


def unpacked(text: str) -> str:
    return gzip.decompress(base64.b64decode(text)).decode()


def with_lr(run: dict[str, Any], lr: float) -> Mapping[str, Any]:
    run["config"]["training"]["lr"] = lr
    return run
