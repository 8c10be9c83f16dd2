"""The figure of the house, and the page that it is drawn from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.architecture_figure import CHECKOUT, PAGE, House, circles, draw, facts, main, read_way

CONTRACT = """
[[tool.importlinter.contracts]]
type = "layers"
layers = ["petlbench.top", "petlbench.left | petlbench.right", "petlbench.base"]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    files = {
        "__init__.py": "x = 1\n",
        "top.py": "from petlbench.left import a\nfrom petlbench import base\ndef f(a, b, c, d, e, f, g, h, *i): ...\n",
        "left.py": "def f():\n    from petlbench.right.deep import a\n",
        "right/__init__.py": "",
        "right/deep.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from petlbench.left import f\n",
        "base.py": "import petlbench.top\n",
    }
    for name, text in files.items():
        file = tmp_path / "petlbench" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "pyproject.toml").write_text(CONTRACT)
    return tmp_path


@pytest.fixture(scope="module")
def house() -> House:
    """The house that this checkout is."""
    return House.read(CHECKOUT)


def test_imports_are_read_wherever_they_stand(checkout: Path) -> None:
    house = House.read(checkout)
    at_run_time = {("top", "left"), ("top", "base"), ("left", "right.deep"), ("base", "top")}
    assert set(house.imports_at_run_time) == at_run_time
    assert set(house.imports) == at_run_time | {("right.deep", "left")}
    assert sorted(house.upward()) == [("base", "top"), ("left", "right.deep"), ("right.deep", "left")]
    assert [sorted(group) for group in circles(house.imports_at_run_time)] == [["base", "top"]]
    assert len(circles(house.imports)) == 2


def test_facts_count_what_they_name(checkout: Path) -> None:
    figures = facts(House.read(checkout))
    assert figures["entries at the package's root"] == 5
    assert figures["layers of import-linter"] == 3
    assert figures["files"] == 6
    assert figures["functions with over 8 parameters"] == 1
    assert figures["arrows that point up"] == 3


def test_the_page_names_files_that_are_there(house: House) -> None:
    text = (CHECKOUT / PAGE).read_text(encoding="utf-8")
    files = re.findall(r"`([\w/]+\.py)`", text)
    assert len(files) > 40
    places = (CHECKOUT, CHECKOUT / "petlbench")
    assert [name for name in files if not any((place / name).is_file() for place in places)] == []
    for heading, most in (("The way of a run", 30), ("The way of an image", 25)):
        way = read_way(CHECKOUT / PAGE, heading)
        assert 15 < len(way) <= most
        assert set(way) <= set(house.modules)


def test_the_figure_has_the_same_bytes_each_time(house: House, tmp_path: Path) -> None:
    way = read_way(CHECKOUT / PAGE, "The way of a run")
    files = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for file in files:
        draw(house, way, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(files[0].read_bytes()) < 100_000
    assert "evaluation" in files[0].read_text(encoding="utf-8")


def test_it_prints_the_facts(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["architecture_figure.py", "--facts", str(checkout)])
    main()
    printed = capsys.readouterr().out
    assert "files" in printed
    assert "up: base imports from top" in printed
