"""Markdown, CSV and LaTeX of a table: right, and proof against any text in it."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.report.document import Cell, Column, Row, Table
from petlbench.report.formats import Document, ReportFormat, check_output, parse_formats, write_report
from petlbench.report.render import data_files, latex, markdown

HOSTILE = r"a|b*_`<script>alert(1)</script> \input{/etc/passwd} 50% $x^2$ #1 & ~ -- 'q' " + '"'


def formats(text: str | None, output: Path | None = None) -> list[ReportFormat]:
    return parse_formats(text, output, Catalog())


def document(text: str = "plain") -> Document:
    columns = [
        Column("auc", text, "%", "higher", group=text),
        Column("memory", "memory", "MiB", "lower", group=text),
        Column("note", "note", numeric=False),
    ]
    rows = [
        Row("one", text, {"auc": Cell(90.5, "90.5 ± 0.5", 90, 91, 0.5, "best"), "note": Cell(text=text)}),
        Row(
            "two",
            "two",
            {"auc": Cell(-1.25, "-1.25", mark="second", flags=("few",)), "memory": Cell(text="oom", reason="oom")},
        ),
        Row("trivial", "trivial", {"auc": Cell(50, "50")}, "baseline"),
    ]
    table = Table(
        "main", text, columns, rows, caption=text, notes=[text], commands=[f"petlbench run --set my_method.name={text}"]
    )
    return Document("mine", text, [table, Table("more", "more", columns[2:], rows[:1])], notes=[text])


def test_a_markdown_table_marks_and_aligns() -> None:
    lines = markdown.render_table(document().tables[0]).splitlines()
    assert lines[:5] == [
        "| method | plain: plain, % | plain: memory, MiB | note |",
        "| :-- | --: | --: | :-- |",
        "| plain | **90.5 ± 0.5** |  | plain |",
        "| two | <u>-1.25 †</u> | oom |  |",
        "| *trivial* | 50 |  |  |",
    ]


def test_a_command_in_markdown_is_code_to_be_copied() -> None:
    assert "```sh\npetlbench run --set my_method.name=plain\n```" in markdown.render_table(document().tables[0])


def test_nothing_in_markdown_is_taken_for_markup() -> None:
    text = markdown.render(document(HOSTILE))
    outside, code, *others = text.split("```")
    assert not others[1:]
    assert "\n" not in code.removeprefix("sh\n").removesuffix("\n")
    assert "<script" not in outside + others[0]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| ")}
    assert widths == {5, 3}


@given(st.text())
def test_any_text_keeps_to_its_markdown_cell(text: str) -> None:
    escaped = markdown.escape(text)
    assert "\n" not in escaped
    assert not re.search(r"(?<!\\)(\\\\)*\|", escaped)
    assert "<" not in escaped


def test_csv_has_numbers_unrounded_and_reasons() -> None:
    rows = list(csv.DictReader(io.StringIO(data_files.render_table(document().tables[0]))))
    assert [row["auc"] for row in rows] == ["90.5", "-1.25", "50"]
    assert (rows[0]["auc_std"], rows[0]["auc_low"], rows[0]["auc_high"]) == ("0.5", "90", "91")
    assert (rows[1]["memory"], rows[1]["memory_reason"], rows[1]["auc_flags"]) == ("", "oom", "few")
    assert [row["kind"] for row in rows] == ["method", "method", "baseline"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-cmd", "@x"])
def test_csv_holds_no_formula(text: str) -> None:
    rows = list(csv.DictReader(io.StringIO(data_files.render_table(document(text).tables[0]))))
    assert rows[0]["title"] == f"'{text}"


def test_latex_names_its_preamble_and_uses_booktabs() -> None:
    text = latex.render(document())
    assert all(f"%   {line}" in text for line in latex.PREAMBLE)
    assert text.count(r"\toprule") == 2
    assert r"\textbf{90.5 $\pm$ 0.5}" in text
    assert r"\underline{$-$1.25\textdagger{}}" in text
    assert r"\multicolumn{2}{c}{plain}" in text
    assert r"\cmidrule(lr){2-3}" in text
    assert r"\texttt{petlbench run -{}-set my\_method.name=plain}" in text


@given(st.text())
def test_any_text_is_text_in_latex(text: str) -> None:
    escaped = latex.escape(text)
    assert "\n" not in escaped
    assert "--" not in escaped
    bare = re.sub(r"\\(text[a-z]+|ldots)\{\}|\\[{}$&%#_]|\$(\\[a-z]+|\^[23]|-)\$|-\{\}", "", escaped)
    assert not set(bare) & set("\\{}$&%#_~^")


def test_what_tex_would_run_is_printed() -> None:
    lines = [line for line in latex.render(document(HOSTILE)).splitlines() if not line.startswith("%")]
    assert not any(r"\input" in line.replace(r"\textbackslash{}input", "") for line in lines)


def test_a_long_table_goes_on_in_another() -> None:
    rows = [Row(f"row {number}", f"row {number}", {}) for number in range(85)]
    text = latex.render_table(Table("main", "Long", [Column("auc", "AUC")], rows, "All.", ["A note."]), "tab:long")
    pages = text.split(r"\begin{table}")[1:]
    assert [page.count("row ") for page in pages] == [40, 40, 5]
    assert [page.count(r"\label{tab:long}") for page in pages] == [1, 0, 0]
    assert [r"\caption{Long, continued.}" in page for page in pages] == [False, True, True]
    assert ["A note." in page for page in pages] == [False, False, True]


def wide() -> Table:
    columns = [Column(f"task{n}", f"Task & {n}", group="many" if n else "") for n in range(17)]
    cells = {"task1": Cell(71.2, "71.2 ± 0.4", std=0.4, mark="best"), "task2": Cell(-1, "-1.0")}
    rows = [Row("a", "A", cells), Row("b", "B", {"task1": Cell(5, "5")}), Row("c", "C", {}, "baseline")]
    return Table("main", "Wide", [*columns, Column("note", "note", numeric=False)], rows)


def test_a_wide_table_has_upright_headings_and_deviations_below_their_figures() -> None:
    lines = latex.render_table(wide(), "tab:wide", 400).splitlines()
    heading = next(line for line in lines if "rotatebox" in line)
    assert heading.count(r"\rotatebox{90}{\begin{tabular}{@{}l@{}}Task \& ") == 17
    assert heading.endswith(r"} & note \\")
    assert rf"\begin{{tabular}}{{@{{}}l{'c' * 17}l@{{}}}}" in lines
    at = lines.index(r"\midrule")
    assert lines[at + 1].startswith(r"A &  & \textbf{71.2} & $-$1.0 &")
    assert r"& $\pm$0.4 &" in lines[at + 2]
    assert [line.split(" ")[0] for line in lines[at + 3 : at + 6]] == ["B", r"\midrule", r"\emph{C}"]
    assert not any("rotatebox" in line for line in latex.render_table(document().tables[0], "tab").splitlines())


def suite(methods: int = 16) -> Table:
    """A table as VTAB-1k's: 19 tasks in three groups and five means, with two decimals and deviations."""
    groups = {"Natural": 7, "Specialized": 4, "Structured": 8, "mean": 5}
    columns = [Column(f"{group}{n}", f"{group}-task {n}", group=group) for group, n in groups.items() for n in range(n)]
    cells = {each.key: Cell(71.25, "71.25 ± 0.25", std=0.25, mark="best") for each in columns}
    rows = [Row(f"method {n}", f"A long method {n}", cells) for n in range(methods)]
    return Table("main", "Suite", columns, rows, "Accuracy.", ["A note."])


def test_a_suite_in_latex_is_cut_between_groups_and_never_made_smaller() -> None:
    text = latex.render_table(suite(), "tab:suite")
    panels = text.split(r"\begin{tabular}{@{}lc")[1:]
    assert [re.findall(r"multicolumn\{(\d)\}\{c\}\{(\w+)\}", panel) for panel in panels] == [
        [("7", "Natural")],
        [("4", "Specialized")],
        [("8", "Structured")],
        [("5", "mean")],
    ]
    assert all(panel.count("A long method") == 16 for panel in panels)
    assert not re.search(r"resizebox|scriptsize|\\tiny|scalebox", text)
    floats = text.split(r"\begin{table}")[1:]
    assert [r"\caption{Suite, continued.}" in each for each in floats] == [False] + [True] * (len(floats) - 1)
    assert ["A note." in each for each in floats] == [False] * (len(floats) - 1) + [True]


def test_columns_go_on_in_parts_that_cut_no_group_but_one_wider_than_a_line() -> None:
    groups = ["", "one", "one", "two", "two", "", "wide", "wide", "wide", "wide"]
    columns = [Column(str(place), str(place), group=group) for place, group in enumerate(groups)]
    parts = Table("main", "T", columns, []).parts(lambda some: len(some) <= 3)
    assert ["".join(column.key for column in part) for part in parts] == ["012", "345", "678", "9"]
    parts = Table("main", "T", columns[:1] + columns[6:], []).parts(lambda some: len(some) <= 3)
    assert ["".join(column.key for column in part) for part in parts] == ["067", "89"]


def test_panels_that_have_room_share_a_page_and_the_caption_says_so() -> None:
    text = latex.render_table(suite(methods=1), "tab:suite")
    assert text.count(r"\begin{table}") == 1
    assert r"\caption{Suite. Accuracy. Columns go on below.}" in text
    assert "go on below" not in latex.render_table(document().tables[0], "tab")


def test_headings_are_cut_into_lines_that_are_about_equally_long() -> None:
    titles = ("Natural, 6 of 7", "learnable without head", "memory, preloading", "X-rays (synthetic)")
    table = Table("main", "T", [Column(title, title) for title in titles], [])
    lines = latex.render_table(table, "tab").splitlines()
    at = lines.index(r"\toprule")
    assert lines[at + 1 : at + 3] == [
        r" & Natural, & learnable & memory, & X-rays \\",
        r"method & 6 of 7 & without head & preloading & (synthetic) \\",
    ]


def test_a_compiled_document_does_not_write_over_a_figure(tmp_path: Path) -> None:
    whole = formats("latex_document")
    assert write_report(document(), whole, tmp_path) == [tmp_path / "mine-document.tex"]
    assert write_report(document(), formats("latex"), tmp_path) == [tmp_path / "mine.tex"]
    assert write_report(document(), whole, tmp_path / "my.tex") == [tmp_path / "my.tex"]


@pytest.mark.slow
@pytest.mark.needs("latex")
@pytest.mark.parametrize("text", [pytest.param("plain", marks=pytest.mark.short), HOSTILE, "Ł é ± 中文 🙂 ½ © ħ"])
def test_the_latex_compiles(tmp_path: Path, text: str) -> None:
    plain = document(text)
    both = replace(plain, tables=[*plain.tables, wide(), suite()])
    write_report(both, formats("latex_document"), tmp_path / "whole.tex")
    fragment = both.to_latex()
    preamble = "\n".join(line.removeprefix("%   ") for line in fragment.splitlines() if line.startswith("%   "))
    page = r"\usepackage[a4paper,textwidth=122mm,textheight=193mm]{geometry}"  # LNCS
    whole = f"\\documentclass{{article}}\n{preamble}\n{page}\n\\begin{{document}}\n{fragment}\\end{{document}}\n"
    (tmp_path / "paper.tex").write_text(whole, encoding="utf-8")
    for name in ("whole", "paper"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
        assert (tmp_path / f"{name}.pdf").stat().st_size > 1000
        # A name that is longer than a line has nowhere to go; all else has to fit.
        assert text == HOSTILE or "Overfull" not in done.stdout
        assert "Float too large" not in done.stdout


def test_files_of_every_text_format(tmp_path: Path) -> None:
    files = write_report(document(), formats("md,csv,latex,json"), tmp_path / "out")
    assert [file.name for file in files] == ["mine.md", "mine.csv", "mine-more.csv", "mine.tex", "mine.json"]
    assert json.loads(files[-1].read_text())["tables"][0]["rows"][0]["cells"]["auc"]["value"] == 90.5
    assert not [file for file in (tmp_path / "out").iterdir() if file.name.startswith(".")]


def test_one_format_goes_to_the_file_that_is_named(tmp_path: Path) -> None:
    (file,) = write_report(document(), formats(None, tmp_path / "mine.tex"), tmp_path / "other.tex")
    assert file == tmp_path / "other.tex"


def test_a_figure_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no figure"):
        write_report(document(), formats("png"), tmp_path)


def test_formats_are_named_and_checked(tmp_path: Path) -> None:
    assert [each.name for each in formats("md, tex,markdown")] == ["md", "latex"]
    with pytest.raises(InputError, match="unknown format 'docx'"):
        formats("docx")
    with pytest.raises(InputError, match="no format of reports ends in '.docx'"):
        formats(None, tmp_path / "a.docx")
    with pytest.raises(InputError, match="there is no --output"):
        check_output(formats("html"), None)
    with pytest.raises(InputError, match="one file, but 2 formats"):
        check_output(formats("md,csv"), tmp_path / "a.md")
    check_output(formats("md"), None)


def test_a_document_is_a_table_of_numbers_texts_and_a_file(tmp_path: Path) -> None:
    frame = document().to_dataframe()
    assert list(frame["auc"]) == [90.5, -1.25, 50]
    assert list(frame["title"]) == ["plain", "two", "trivial"]
    assert document().to_markdown().startswith("# plain")
    assert document().to_html().startswith("<!doctype html>")
    assert document().save(tmp_path / "one.tex") == [tmp_path / "one.tex"]
    assert (tmp_path / "one.tex").read_text() == document().to_latex()
    with pytest.raises(InputError, match="no ending"):
        document().save(tmp_path / "one")
