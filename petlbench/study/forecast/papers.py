"""The papers' memory figures, and how the runs were made that they were read from.

The papers print what ``nvidia-smi`` shows: what torch reserved, and a CUDA context of a size that is not known.
"""

from __future__ import annotations

import csv
import importlib
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from petlbench.core.entry import shipped_folder
from petlbench.core.errors import InputError

_FOLDER = "published"
_MIB = 2**20
_CHECKOUT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class PaperRow:
    """A printed row and the run behind it.

    Args:
        table: The file of the table in ``reports/published``.
        row: The row's label there.
        preload: Whether frozen features are preloaded; None for the method's default.
        fit: Whether the paper's constant is fitted on this row.
        settings: Settings that are not the method's defaults.
    """

    table: str
    row: str
    method: str
    preload: bool | None = None
    fit: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def printed(self) -> int:
        """The printed figure in bytes; the papers' MB are MiB."""
        lines = printed_lines(self.table)
        return next(int(line["memory"]) * _MIB for line in lines if next(iter(line.values())) == self.row)


@dataclass(frozen=True)
class Paper:
    """A paper's setting and rows, as ``reports/published/settings.toml`` has them.

    Args:
        key: The paper's name on the command line.
        title: Its title in tables.
        tables: The files of its tables in ``reports/published``, by the reports that they stand for.
        datasets: Names of the datasets that its average is over.
        evaluates: Whether the figure was read while an evaluation held batches of its own.
    """

    key: str
    title: str
    tables: Mapping[str, str]
    datasets: Sequence[str]
    backbone: str
    image_size: int
    batch_size: int
    precision: str
    attention_kernel: str
    evaluates: bool
    rows: Sequence[PaperRow]


@cache
def papers() -> tuple[Paper, ...]:
    """The papers whose memory figures are known."""
    text = (shipped_folder("report") / _FOLDER / "settings.toml").read_text(encoding="utf-8")
    return tuple(
        Paper(key=key, **(paper | {"rows": tuple(PaperRow(**row) for row in paper["rows"])}))
        for key, paper in tomllib.loads(text).items()
    )


def printed_figures(backbone: str, image_size: int, batch_size: int) -> dict[str, dict[str, int]]:
    """Return the bytes that papers print for whole methods, by method and paper; nothing for another setting.

    Args:
        backbone: timm's name, with or without its weight tag.
        image_size: Height and width in pixels.
        batch_size: Images a step.
    """
    from petlbench.models.registry import resolve_backbone  # timm and torch, which a table of print needs not

    figures: dict[str, dict[str, int]] = {}
    for paper in papers():
        setting = (resolve_backbone(paper.backbone).partition(".")[0], paper.image_size, paper.batch_size)
        if setting == (backbone.partition(".")[0], image_size, batch_size):
            for row in paper.rows:
                if row.row == row.method:
                    figures.setdefault(row.method, {})[paper.key] = row.printed
    return figures


def published_memory() -> ModuleType:
    """The tool that predicts the printed figures in the form of the papers' authors.

    Load it before worker processes are started: it is no part of an installed petlbench, and they find it as this one.

    Raises:
        InputError: When petlbench does not run from its checkout.
    """
    if not (_CHECKOUT / "tools" / "published_memory.py").is_file():
        message = "--compare papers runs a tool of petlbench's repository, which the installed package does not have"
        hint = "clone the repository and install it from there with pip install -e ., or leave the option out"
        raise InputError(message, hint=hint, kind="no_checkout")
    if str(_CHECKOUT) not in sys.path:
        sys.path.append(str(_CHECKOUT))
    return importlib.import_module("tools.published_memory")


@cache
def printed_lines(name: str) -> Sequence[Mapping[str, str]]:
    """The lines of a printed table, by the columns of its file in ``reports/published``."""
    with (shipped_folder("report") / _FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
