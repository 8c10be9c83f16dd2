"""A run that was asked for before is told at once, and only while all that it depends on is as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import petlbench as pb
from petlbench.core.errors import InputError
from petlbench.run import execute

OPTIONS: dict[str, Any] = {
    "backbone": "petlbench_micro", "image_size": 32, "epochs": 1, "tracking_uri": "none", "measure_inference": "off",
}  # fmt: skip
METHOD = """
from petlbench.methods.linear import LinearProbing
from petlbench.core.entry import MethodCard

class Own(LinearProbing):
    card = MethodCard(name="own", title="Own", family="head", year=2026, paper="")
"""


def draw(file: Path, seed: int) -> None:
    """An image of noise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)


class Asked:
    """A run on two classes of noise with a method of one's own, and whether asking again carries it out again."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.data, self.catalog, self.output = folder / "data", folder / "catalog", folder / "results"
        for number in range(24):
            draw(self.data / f"class{number % 2}" / f"{number}.png", number)
        self.catalog.mkdir()
        (self.catalog / "own.py").write_text(METHOD)
        self.executions = 0
        carry_out = execute.execute

        def count(*arguments: Any) -> Any:
            self.executions += 1
            return carry_out(*arguments)

        monkeypatch.setattr(execute, "execute", count)

    def __call__(self, **changes: Any) -> bool:
        """Whether the run is recalled."""
        before = self.executions
        places = {"output": self.output, "catalog": self.catalog, "progress": False}
        pb.run("own", str(self.data), **{**OPTIONS, **places, **changes})
        return self.executions == before


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked(tmp_path, monkeypatch)
    assert not asked()
    assert asked()
    return asked


def add(asked: Asked) -> None:
    draw(asked.data / "class0" / "more.png", 99)


def add_class(asked: Asked) -> None:
    for number in range(8):
        draw(asked.data / "class2" / f"{number}.png", 99 + number)


def change(asked: Asked) -> None:
    """Change pixels, in a file of the same size whose time is that of before but for a nanosecond."""
    file = asked.data / "class0" / "0.png"
    time = file.stat().st_mtime_ns
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(time + 1, time + 1))


def change_method(asked: Asked) -> None:
    (asked.catalog / "own.py").write_text(METHOD + "\n# changed")


def remove_result(asked: Asked) -> None:
    for folder in asked.output.glob("own-*"):
        shutil.rmtree(folder)


def damage(asked: Asked) -> None:
    for file in (asked.output / ".asked").iterdir():
        file.write_text('{"run_id": "../x", "digests": 1}')


@pytest.mark.parametrize("act", [add, add_class, change, change_method, remove_result, damage])
def test_a_change_of_what_it_depends_on_is_seen(asked: Asked, act: Callable[[Asked], None]) -> None:
    act(asked)
    try:
        assert not asked()
    except InputError as error:  # it was carried out as far as to see that the result is of something else
        assert error.kind == "stale_result"


def test_another_question_is_another_run(asked: Asked) -> None:
    assert not asked(seed=1)
    assert asked(seed=1)
    assert not asked(verify=True)
    assert asked()


def test_a_finished_run_is_told_without_torch(asked: Asked) -> None:
    code = (
        "import sys, petlbench as pb\n"
        f"pb.run('own', {str(asked.data)!r}, output={str(asked.output)!r}, catalog={str(asked.catalog)!r}, "
        f"progress=False, **{OPTIONS!r})\n"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_file_that_goes_while_a_run_is_under_way_takes_nothing_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(tmp_path, monkeypatch)
    carry_out = execute.execute

    def lose(*arguments: Any) -> Any:
        result = carry_out(*arguments)
        (asked.data / "class0" / "0.png").unlink()
        return result

    monkeypatch.setattr(execute, "execute", lose)
    assert not asked()
    assert not (asked.output / ".asked").exists()
