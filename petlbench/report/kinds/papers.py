"""The papers' printed tables, as ``reports/published`` holds them."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from petlbench.core.entry import shipped_folder
from petlbench.core.errors import unknown_name

__all__ = ["PAPERS", "PaperRow", "PaperTable", "paper_table"]

PAPERS: Mapping[str, Mapping[str, str]] = {
    "miccai2024": {
        "table1": "miccai2024_table1",
        "ablation": "miccai2024_table2",
        "token_ratio": "miccai2024_table3",
        "tradeoff": "miccai2024_table1",
    },
    "tnnls2025": {"table1": "tnnls2025_summary", "tradeoff": "tnnls2025_summary"},
}
"""Which printed table is which report, by paper."""

_DATASETS: Mapping[str, tuple[str, ...]] = {
    "miccai2024": ("messidor2", "isic2018", "ddsm", "covid"),
    "tnnls2025": ("ddr", "messidor2", "isic2016", "isic2018", "ddsm", "cmmd", "covid", "chncxr"),
}
# Columns that are no dataset.
_OTHERS = ("params", "memory", "avg_auc", "ppe", "pme")


@dataclass(frozen=True)
class PaperRow:
    """A printed row.

    Args:
        key: Its label in the file.
        scores: Printed AUC by dataset, in percent.
        stds: Printed standard deviations by dataset, in percent.
        printed: What else is printed: ``params`` (percent), ``memory`` (MB), ``avg_auc`` (percent), ``ppe``, ``pme``.
    """

    key: str
    scores: Mapping[str, float]
    stds: Mapping[str, float]
    printed: Mapping[str, float]


@dataclass(frozen=True)
class PaperTable:
    """A printed table.

    Args:
        paper: Key of the paper.
        title: The paper's short name.
        file: Name of the table's file without its ending.
        datasets: Names of the datasets that have columns.
        averaged: Names of the datasets that its average is over.
        rows: The rows in their order.
        full_memory: Printed memory of ``full`` in MB, which the paper's PME refers to.
        settings: What the figures were read in, as far as is known: backbone, image_size, batch_size, precision,
            attention_kernel.
    """

    paper: str
    title: str
    file: str
    datasets: tuple[str, ...]
    averaged: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    full_memory: float
    settings: Mapping[str, Any]

    def row(self, key: str) -> PaperRow | None:
        """The row of a label, or None."""
        return next((row for row in self.rows if row.key == key), None)

    @property
    def description(self) -> str:
        """The settings in words."""
        settings = self.settings
        return (
            f"{settings['backbone']} at {settings['image_size']} pixels, batch size {settings['batch_size']}; as far "
            f"as is known in {settings['precision']} with {settings['attention_kernel']} attention, memory as "
            "nvidia-smi shows it"
        )


@cache
def paper_table(paper: str, report: str) -> PaperTable | None:
    """Read the printed table that stands for a report.

    Returns:
        The table; None where the paper prints none of that kind.

    Raises:
        InputError: When no such paper is known.
    """
    if paper not in PAPERS:
        raise unknown_name("paper", paper, PAPERS)
    if report not in PAPERS[paper]:
        return None
    file = PAPERS[paper][report]
    rows = tuple(_row(line) for line in _lines(file))
    settings = _settings()[paper]
    main = _lines(PAPERS[paper]["table1"])
    full = next(float(line["memory"]) for line in main if line["method"] == "full")
    return PaperTable(paper, settings["title"], file, tuple(rows[0].scores), _DATASETS[paper], rows, full, settings)


def _lines(file: str) -> list[dict[str, str]]:
    with (shipped_folder("report") / "published" / f"{file}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@cache
def _settings() -> dict[str, Any]:
    return tomllib.loads((shipped_folder("report") / "published" / "settings.toml").read_text(encoding="utf-8"))


def _row(line: Mapping[str, str]) -> PaperRow:
    label, *columns = line
    scores = [name for name in columns if name not in _OTHERS and not name.endswith("_std")]
    return PaperRow(
        line[label],
        {name: float(line[name]) for name in scores},
        {name: float(line[f"{name}_std"]) for name in scores},
        {name: float(line[name]) for name in _OTHERS if line.get(name)},
    )
