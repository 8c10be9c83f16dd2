"""Every report in every format: whole, or refused before anything is written; and no name steers what reads it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.report.build import build_report
from petlbench.report.document import Cell, Column, Row, Table
from petlbench.report.formats import Document, parse_formats, write_report
from petlbench.report.spec import ReportRequest, load_report, suites
from tests.report.kinds import test_learning_curves, test_sensitivity, test_subgroups
from tests.report.stored import FPT_SETTINGS, store, store_predicted

REPORTS = tuple(Catalog().entries("report"))
FORMATS = tuple(Catalog().entries("format"))
SHOWS_FIGURES = {"png", "pdf", "svg"}
HOSTILE = "\x1b[31m=cmd()\u202e\u2028<b>眼底"


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    """Every shipped report of one small study, whose datasets have one folder name."""
    results = tmp_path_factory.mktemp("study") / "results"
    for method in ("full", "fpt"):
        for dataset in ("a/images", "b/images"):
            for seed in (0, 1):
                settings = {"method_settings": FPT_SETTINGS} if method == "fpt" else {}
                store_predicted(results, method, dataset, seed, 2.0, title="images", **settings)
        store(results / "trials", method, "a/images", training={"lr": 0.01})
    for file in results.glob("*/result.json"):
        document = json.loads(file.read_text())
        document["data"]["classes"] = ["=1+1", HOSTILE]
        file.write_text(json.dumps(document))
    # Reports of other studies than that: of several numbers of labels, with columns of the dataset's table, of suites,
    # with test scores of every epoch.
    few, columns, audit = (tmp_path_factory.mktemp(name) for name in ("few", "columns", "audit"))
    for method in ("full", "fpt"):
        test_sensitivity.store_audit(audit, method, HOSTILE, (0.5, 0.6))
    test_learning_curves.stored(few)
    test_subgroups.stored(columns, {"sex": [HOSTILE, "=f"] * 300})
    own = {"learning_curves": ReportRequest(str(few)), "subgroups": ReportRequest(str(columns), by=("sex",))}
    own["sensitivity"] = ReportRequest(str(audit), metric="auc")
    for name in suites(Catalog()):
        own[name] = ReportRequest(str(tmp_path_factory.mktemp(name)), compare=True)
        for dataset in load_report(Catalog(), name).datasets[:2]:
            store_predicted(Path(own[name].results), "full", dataset, 0, 2.0, title=HOSTILE)
    request = ReportRequest(str(results), measured=True)
    return {name: build_report(load_report(Catalog(), name), own.get(name, request), Catalog()) for name in REPORTS}


class Unread(Sequence[Mapping[str, Any]]):
    """Runs that nobody may read."""

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("a run was read")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("name", ["csv", "latex", "md", "svg"])
def test_formats_that_show_no_run_read_none(name: str, documents: dict[str, Document], tmp_path: Path) -> None:
    document = replace(documents["table1"], runs=Unread())
    assert write_report(document, parse_formats(name, None, Catalog()), tmp_path)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("report", REPORTS)
def test_every_report_in_every_format(report: str, name: str, documents: dict[str, Document], tmp_path: Path) -> None:
    document, output = documents[report], tmp_path / "out"
    shows = document.figures if name in SHOWS_FIGURES else document.tables if name == "csv" else True
    if not shows:
        with pytest.raises(InputError, match=f"the report '{report}' has no"):
            write_report(document, parse_formats(f"json,{name}", None, Catalog()), output)
        assert not output.exists()
        return
    files = write_report(document, parse_formats(name, None, Catalog()), output)
    assert sorted(files) == sorted(output.iterdir())
    assert len(files) >= (len(document.figures) if name in SHOWS_FIGURES else 1)
    assert all(file.stat().st_size for file in files)
    if name not in {"png", "pdf"}:
        texts = [file.read_bytes().decode() for file in files if file.suffix != ".pdf"]
        assert not [unicodedata.name(sign, repr(sign)) for text in texts for sign in text if steers(sign)]


def steers(sign: str) -> bool:
    return (unicodedata.category(sign) == "Cc" and sign not in "\n\t") or sign in "\u202e\u2028\u2029"


def test_names_of_classes_are_text_in_every_format(documents: dict[str, Document], tmp_path: Path) -> None:
    files = write_report(documents["clinical"], parse_formats("md,csv,latex,html", None, Catalog()), tmp_path)
    by_ending = {file.suffix: file.read_text(encoding="utf-8") for file in files if file.suffix != ".pdf"}
    assert all("x1b" in text for text in by_ending.values())
    assert not [ending for ending in (".md", ".html") if "<b>" in by_ending[ending].partition("<script")[0]]
    rows = list(csv.DictReader(io.StringIO(by_ending[".csv"])))
    assert not [value for row in rows for value in row.values() if str(value).startswith(("=", "+", "@"))]
    assert "眼底" in by_ending[".md"]


def test_datasets_of_one_folder_name_are_columns_and_files_of_their_own(
    documents: dict[str, Document], tmp_path: Path
) -> None:
    headings = [column.title for column in documents["table1"].tables[0].columns]
    assert {"a/images", "b/images"} <= set(headings)
    files = write_report(documents["curves"], parse_formats("svg", None, Catalog()), tmp_path)
    assert {"curves-a-images-val_auc.svg", "curves-b-images-val_auc.svg"} <= {file.name for file in files}
    assert len({file.name for file in files}) == len(documents["curves"].figures)


@pytest.mark.parametrize(
    "keys", [("../../out", "..-..-out"), ("眼底/a", "眼底-a"), ("n" * 400, "n" * 399), ("a\0b", "a\nb")]
)
def test_no_name_of_a_table_leaves_the_folder_and_none_takes_anothers_place(
    keys: tuple[str, str], tmp_path: Path
) -> None:
    rows = [Row("a", "a", {"x": Cell(1, "1")})]
    tables = [Table(key, key, [Column("x", "x")], rows) for key in ("main", *keys)]
    files = write_report(Document("r", "R", tables), parse_formats("csv", None, Catalog()), tmp_path / "out")
    assert len(set(files)) == 3
    assert sorted(files) == sorted((tmp_path / "out").iterdir())
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


WRITE_TWO = """
import resource, sys
from pathlib import Path
from petlbench.core.catalog import Catalog
from petlbench.report.formats import Document, parse_formats, write_report

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # the page is larger, the other file is not
try:
    write_report(Document("r", "R"), parse_formats("md,html", None, Catalog()), Path(sys.argv[1]))
except OSError:
    sys.exit(3)
"""


def test_where_one_file_cannot_be_written_none_is(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WRITE_TWO, str(tmp_path)], check=False)
    assert done.returncode == 3
    assert not list(tmp_path.iterdir())


def test_labels_in_latex_are_distinct_whatever_the_script(tmp_path: Path) -> None:
    rows = [Row("a", "a", {"x": Cell(1, "1")})]
    document = Document("r", "R", [Table(key, key, [Column("x", "x")], rows) for key in ("眼底", "皮肤")])
    labels = [line for line in document.to_latex().splitlines() if line.startswith("\\label")]
    assert len(set(labels)) == 2
