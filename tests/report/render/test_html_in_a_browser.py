"""The page in Chromium: sorted, filtered, explored, printed, without a request and without an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright import sync_api as playwright
from playwright.sync_api import expect

from petlbench.report.document import Axis, Cell, Column, Figure, Row, Series, Table
from petlbench.report.formats import Document
from tests.parts import find_program
from tests.report.demo import HOSTILE, demo_document

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

expect.set_options(timeout=240_000)  # milliseconds; a busy machine is no failure


@dataclass
class Opened:
    """A page that is open, with what it said and asked for."""

    page: playwright.Page
    file: Path
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def column(self, table: str, place: int) -> list[str]:
        rows = f"{table} tbody.method > tr, {table}.runs > tbody > tr:not(.detail)"
        cells = "(rows, place) => rows.map((row) => row.cells[place].innerText.trim())"
        return list(self.page.locator(rows).evaluate_all(cells, place))


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=find_program("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report whose first method is markup."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    demo_document(first_title=HOSTILE).save(file)
    return file


@pytest.fixture
def opened(browser: playwright.Browser, file: Path) -> Iterator[Opened]:
    """The page; whatever a test does to it, it says no error and asks for nothing but itself."""
    found = show(browser, file)
    yield found
    assert found.said == []
    assert [address for address in found.asked if not address.startswith(("blob:", "data:"))] == [file.as_uri()]
    found.page.context.close()


def show(browser: playwright.Browser, file: Path, scheme: str = "light", width: int = 1280) -> Opened:
    context = browser.new_context(offline=True, color_scheme=scheme, viewport={"width": width, "height": 900})
    context.set_default_timeout(240_000)
    found = Opened(context.new_page(), file)
    found.page.on("console", lambda message: found.said.append(message.text))
    found.page.on("pageerror", lambda error: found.said.append(str(error)))
    found.page.on("dialog", lambda dialog: (found.said.append(dialog.message), dialog.dismiss()))
    found.page.on("request", lambda request: found.asked.append(request.url))
    found.page.goto(file.as_uri())
    return found


def see(opened: Opened, section: str) -> None:
    opened.page.locator(section).scroll_into_view_if_needed()
    opened.page.wait_for_selector(f"{section} .main-svg .cartesianlayer", state="attached")


@pytest.mark.short
def test_a_click_on_a_heading_sorts_best_first_and_empty_last(opened: Opened) -> None:
    before = opened.column("#table-main", 0)
    ddsm = opened.page.locator("#table-main thead th", has_text="ddsm")
    ddsm.get_by_role("button").click()
    assert ddsm.get_attribute("aria-sort") == "descending"
    values = opened.column("#table-main", 5)
    assert values[0] == "92.1 ± 1.2"
    assert values[-1].startswith("–")
    assert opened.page.locator("#table-main tbody").last.inner_text().startswith("32x32")
    ddsm.get_by_role("button").click()
    assert opened.column("#table-main", 5)[0] == "85.1 ± 1.2"
    assert opened.column("#table-main", 5)[-1].startswith("–")
    ddsm.get_by_role("button").click()
    assert opened.column("#table-main", 0) == before


def test_the_keyboard_sorts_too(opened: Opened) -> None:
    heading = opened.page.locator("#table-main thead th", has_text="memory")
    heading.get_by_role("button").focus()
    opened.page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert opened.column("#table-main", 2)[:2] == ["736", "1,824"]


def test_a_filter_keeps_rows_that_hold_every_word(opened: Opened) -> None:
    runs = opened.page.locator("#runs")
    runs.get_by_role("searchbox").fill("FPT+ ddsm")
    assert opened.column("#runs table", 0) == ["FPT+"] * 3
    assert "3 of 3 rows (of 108)" in runs.get_by_role("status").inner_text()
    runs.get_by_role("searchbox").fill("oom")
    assert opened.column("#runs table", 0) == [HOSTILE] * 3
    runs.get_by_role("searchbox").fill("")
    assert len(opened.column("#runs table", 0)) == 100
    runs.get_by_role("button", name="show all").click()
    assert len(opened.column("#runs table", 0)) == 108


def test_axes_scales_and_sizes_are_chosen(opened: Opened) -> None:
    see(opened, "#explore")
    explore = opened.page.locator("#explore")
    title = explore.locator(".g-xtitle")
    expect(title).to_have_text("peak memory, allocated, MiB")
    explore.get_by_label("x", exact=True).select_option("time")
    expect(title).to_have_text("time of preloading, training and evaluation, s")
    explore.get_by_label("y", exact=True).select_option("pme")
    expect(explore.locator(".g-ytitle")).to_have_text("PME, %")
    assert explore.get_by_label("log x").is_checked()
    ticks = explore.locator(".xtick text").all_text_contents()
    explore.get_by_label("log x").uncheck()
    expect(explore.locator(".xtick text")).not_to_have_text(ticks)
    sizes = explore.locator(".points path").evaluate_all("(all) => all.map((one) => one.getAttribute('d'))")
    assert len(set(sizes)) > 5
    explore.get_by_label("size").select_option("")
    explore.get_by_label("runs").select_option(label="COVID, memory: cuda")
    expect(explore.locator(".legendtext")).to_have_count(9)  # eight methods and their Pareto front
    assert "VPT" not in explore.locator(".legendtext").all_text_contents()  # it failed on covid


def test_names_stand_beside_whiskers_and_away_from_the_nearest_point(
    browser: playwright.Browser, tmp_path: Path
) -> None:
    points = {"left": (1, 70), "near": (100, 80), "nearer": (140, 81), "right": (1000, 90)}
    series = [
        Series(name, name, {"x": [x], "y": [y], "y_low": [y - 5], "y_high": [y + 5]}) for name, (x, y) in points.items()
    ]
    title = "a title that is too long for one line of a narrow screen"
    axes = [Axis("x", title, scale="log", better="lower"), Axis("y", "y", better="higher")]
    Document("mine", "Mine", [], [Figure.of("one", "scatter", "One", axes, series)]).save(tmp_path / "page.html")
    opened = show(browser, tmp_path / "page.html", width=390)
    see(opened, "#figure-0")
    ends = "(one, box = one.getBoundingClientRect()) => [one.textContent, box.left, box.right]"
    middle = f"(all) => all.map((one) => ({ends})(one))"
    names = {
        name: (left, right)
        for name, left, right in opened.page.locator("#figure-0 .textpoint text").evaluate_all(middle)
    }
    whiskers = opened.page.locator("#figure-0 .yerror").evaluate_all(middle)
    places = dict(zip(points, ((left + right) / 2 for _, left, right in whiskers), strict=True))
    sides = {name: "right" if names[name][0] > places[name] else "left" for name in points}
    assert sides == {"left": "right", "near": "left", "nearer": "right", "right": "left"}
    assert all(not left < places[name] < right for name, (left, right) in names.items())
    ((said, left, right),) = opened.page.locator("#figure-0 .xtitle").evaluate_all(middle)
    assert said == title.replace("one line", "oneline")  # in two lines
    assert 0 <= left < right <= 390
    opened.page.context.close()


def test_class_names_are_not_cut_within_a_word_and_stand_above_their_counts(
    browser: playwright.Browser, file: Path
) -> None:
    opened = show(browser, file, width=390)
    heading = opened.page.locator(".matrix thead th").first
    heading.scroll_into_view_if_needed()
    style = "(one) => [getComputedStyle(one).overflowWrap, getComputedStyle(one).textAlign]"
    assert heading.evaluate(style) == ["break-word", "right"]
    assert opened.said == []
    opened.page.context.close()


def test_a_single_bar_is_not_as_wide_as_the_page(browser: playwright.Browser, tmp_path: Path) -> None:
    axes = [Axis("label", "label"), Axis("y", "y")]
    bars = Figure.of("one", "bars", "One", axes, [Series("a", "a", {"y": [0.4]}, labels=["alone"])])
    Document("mine", "Mine", [], [bars]).save(tmp_path / "page.html")
    opened = show(browser, tmp_path / "page.html")
    see(opened, "#figure-0")
    width = "(one) => one.getBoundingClientRect().width"
    bar, plot = (opened.page.locator(f"#figure-0 {part}").first.evaluate(width) for part in (".bars .point", ".plot"))
    assert 0 < bar < plot / 4
    opened.page.context.close()


def test_only_a_long_table_has_a_filter(browser: playwright.Browser, tmp_path: Path) -> None:
    sizes = [3, 8, 9]
    rows = [[Row(f"row {n}", f"row {n}", {"auc": Cell(n, f"{n}.0")}) for n in range(size)] for size in sizes]
    tables = [Table(f"of-{len(each)}", "T", [Column("auc", "AUC", better="higher")], each) for each in rows]
    Document("mine", "Mine", tables).save(tmp_path / "page.html")
    opened = show(browser, tmp_path / "page.html")
    sections = opened.page.locator("section.table")
    assert [section.get_by_role("searchbox").count() for section in sections.all()] == [0, 0, 1]
    sections.first.get_by_role("button").last.click()
    assert sections.first.locator("tbody th").first.inner_text() == "row 2"  # it sorts all the same
    assert opened.said == []
    opened.page.context.close()


def test_hovering_names_the_point(opened: Opened) -> None:
    see(opened, "#figure-0")
    opened.page.locator("#figure-0 .scatterlayer .points path").first.hover(force=True)
    opened.page.wait_for_selector("#figure-0 .hovertext")
    told = opened.page.locator("#figure-0 .hovertext").text_content()
    assert told is not None
    assert told.startswith(HOSTILE)
    assert "peak memory, allocated: 23128 MiB" in told


def test_a_run_unfolds_with_its_settings_environment_and_matrices(opened: Opened) -> None:
    run = opened.page.locator("#runs .expand", has_text="<script>").first
    run.click()
    detail = opened.page.locator("#runs tr.detail")
    detail.get_by_text("vit_base_patch16_224.augreg_in21k").wait_for()
    told = detail.inner_text()
    for words in ("NVIDIA H200", "2.15.0", "weight_decay", "confusion, test", HOSTILE):
        assert words in told
    see(opened, "#runs tr.detail")
    run.click()
    assert opened.page.locator("#runs tr.detail").count() == 0
    opened.page.locator("#runs").get_by_role("searchbox").fill("oom")
    opened.page.locator("#runs .expand").first.click()
    opened.page.get_by_text("tried to allocate 2.1 GiB").first.wait_for()


def test_names_are_never_markup(opened: Opened) -> None:
    for section in ("#figure-0", "#figure-1", "#figure-5", "#figure-7", "#explore"):
        see(opened, section)
    for summary in opened.page.locator("summary").all():
        summary.click()
    scripts = "[...document.scripts].filter(s => s.textContent.startsWith('alert')).length"
    assert opened.page.evaluate(scripts) == 0
    assert opened.page.locator("#figure-0 .legendtext", has_text="<script>").count() == 1


def test_colours_follow_the_system_and_the_switch(browser: playwright.Browser, file: Path) -> None:
    opened = show(browser, file, "dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert opened.page.evaluate(ground) == "rgb(22, 24, 27)"
    opened.page.get_by_label("colours").select_option("light")
    assert opened.page.evaluate(ground) == "rgb(255, 255, 255)"
    see(opened, "#figure-0")
    ink = "getComputedStyle(document.querySelector('#figure-0 .xtitle')).fill"
    assert opened.page.evaluate(ink) == "rgb(27, 27, 27)"
    opened.page.get_by_label("colours").select_option("dark")
    assert opened.page.evaluate(ink) == "rgb(232, 232, 232)"
    assert opened.said == []
    opened.page.context.close()


@pytest.mark.needs("pdftotext")
def test_print_has_every_row_and_figure_on_white(browser: playwright.Browser, file: Path, tmp_path: Path) -> None:
    import subprocess

    opened = show(browser, file, "dark")
    see(opened, "#figure-0")
    opened.page.pdf(path=str(tmp_path / "page.pdf"), format="A4", print_background=True)
    assert len(opened.column("#runs table", 0)) == 100  # as before on the screen
    assert opened.said == []
    opened.page.context.close()
    command = ["pdftotext", "-layout", str(tmp_path / "page.pdf"), "-"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert text.count("FPT+") + text.count("fpt_plus") > 24  # runs by their titles, figures by those of the demo
    for words in ("epoch", "image size, pixels", "expected best validation AUC", "difference to lora"):
        assert words in text


def test_nothing_is_wider_than_a_narrow_screen(browser: playwright.Browser, file: Path) -> None:
    opened = show(browser, file, width=360)
    see(opened, "#explore")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert opened.said == []
    opened.page.context.close()


def test_five_thousand_runs_are_shown_at_once(browser: playwright.Browser, tmp_path: Path) -> None:
    document = demo_document(seeds=139)
    assert len(document.runs) >= 5000
    document.save(tmp_path / "large.html")
    assert (tmp_path / "large.html").stat().st_size < 25e6
    opened = show(browser, tmp_path / "large.html")
    assert len(opened.column("#runs table", 0)) == 100
    waited = """() => { const start = performance.now();
        document.querySelector("#runs th:nth-child(5) button").click();
        document.body.getBoundingClientRect(); return performance.now() - start; }"""
    assert opened.page.evaluate(waited) < 3000  # milliseconds, on a busy machine
    opened.page.locator("#runs .expand").first.click()
    opened.page.locator("#runs tr.detail").get_by_text("NVIDIA H200").wait_for()
    assert opened.said == []
    opened.page.context.close()
