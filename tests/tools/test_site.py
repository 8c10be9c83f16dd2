"""The site: pages that are made say what the code says, every page is found, and from the disk nothing is asked for."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import petlbench as pb
from petlbench.results.result import Result

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "tools/site/mkdocs.yml"


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """The hooks, as MkDocs loads them."""
    spec = importlib.util.spec_from_file_location("site_hooks", CONFIG.with_name("hooks.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation_once(hooks: ModuleType) -> None:
    pages = {file.relative_to(ROOT / "docs").as_posix() for file in (ROOT / "docs").rglob("*.md")} | set(hooks.MADE)
    pages |= {f"tutorials/{file.stem}.md" for file in (ROOT / "docs/tutorials").glob("*.ipynb")}
    pages = (pages | set(hooks.TOP.values())) - {hooks.GALLERY}  # which is in it once it was made
    named = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", CONFIG.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(pages)


def test_the_schema_has_every_field_in_words(hooks: ModuleType) -> None:
    page = hooks.MADE["reference/result.md"]()
    for name, field in Result.model_fields.items():
        assert field.description, name
        assert f"`{field.serialization_alias or name}`" in page
    assert "| `latency` | number or null |" in page


def test_the_reference_has_every_name_of_the_package(hooks: ModuleType) -> None:
    pages = hooks.MADE["reference/functions.md"]() + hooks.MADE["reference/classes.md"]()
    names = re.findall(r"^::: petlbench\.\S+\.(\w+)$", pages, re.MULTILINE)
    assert sorted(names) == sorted(set(pb.__all__) - {"__version__"})
    assert "::: petlbench.api.runs.run\n" in pages
    assert "::: petlbench.api.learned.adapt\n" in pages


def test_lists_are_those_of_the_catalogues(hooks: ModuleType) -> None:
    for page, names in (
        ("methods", pb.list_methods()),
        ("datasets", pb.list_datasets()),
        ("metrics", pb.list_metrics()),
    ):
        assert re.findall(r"^\| `([^`]+)`", hooks.MADE[f"reference/{page}.md"](), re.MULTILINE) == list(names)


def test_a_notebook_becomes_a_page_with_its_outputs(hooks: ModuleType) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["1 + 1"], "outputs": [{"data": {"text/plain": ["2"]}}]},
    ]
    assert hooks.notebook_page({"cells": cells}) == "# Title\n\n```python\n1 + 1\n```\n\n```text\n2\n```\n"


@pytest.mark.slow
@pytest.mark.needs("docs")
@pytest.mark.needs("chromium")
def test_the_site_is_built_and_asks_for_nothing_from_the_disk(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    from tests.parts import find_program

    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--config-file",
        str(CONFIG),
        "--site-dir",
        str(site),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_program("chromium"))
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:")) else faults.append(request.url),
        )
        for file in sorted(site.rglob("*.html")):
            page.goto(f"file://{file}")
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                faults.append(f"{file.name} is wider than the window")
        page = browser.new_page()
        page.goto(f"file://{site}/reference/functions.html")
        page.click("input[name=query]")
        page.keyboard.type("verify_pack")
        page.wait_for_selector(".md-search-result__item")
        assert page.locator("#petlbench\\.api\\.runs\\.run").count() == 1
        browser.close()
    assert faults == []
    shutil.rmtree(site)
