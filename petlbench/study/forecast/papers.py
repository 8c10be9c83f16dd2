"""The papers' memory figures, and the prediction of the runs that they were read from.

The papers print what ``nvidia-smi`` shows: what torch reserved, and a CUDA context of a size that is not known. That
one constant is fitted on some rows of a paper, and the other rows are predicted with it.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.entry import shipped_folder
from petlbench.core.request import Request
from petlbench.memory.authors_loop import assemble_as_published, predict_as_published, predict_training_as_published
from petlbench.models.registry import resolve_backbone
from petlbench.run.resolve import resolve

__all__ = [
    "ComparedRow",
    "Comparison",
    "PublishedJob",
    "PublishedPeak",
    "compare",
    "jobs",
    "printed_figures",
    "run_job",
]

_FOLDER = "published"
_MIB = 2**20
# A dataset of the papers; the number of its classes hardly shows.
_DATASET = "isic2018"


@dataclass(frozen=True)
class PublishedJob:
    """One run whose memory a paper, or more than one, prints.

    Args:
        setting: Backbone, image size, batch size, precision and attention kernel.
        method: Name of the method.
        settings: Settings of the method that are not its defaults, as pairs.
        preload: Whether frozen features are preloaded; None for the method's default.
    """

    setting: tuple[str, int, int, str, str]
    method: str
    settings: tuple[tuple[str, Any], ...] = ()
    preload: bool | None = None


@dataclass(frozen=True)
class PublishedPeak:
    """What was predicted for a job, in bytes.

    Args:
        job: The run.
        reserved: Reserved by training alone.
        reserved_evaluating: Reserved where an evaluation holds batches of its own beside the training batch.
        allocated_fp32: In tensors at the peak of training in fp32.
    """

    job: PublishedJob
    reserved: int
    reserved_evaluating: int
    allocated_fp32: int


@dataclass(frozen=True)
class ComparedRow:
    """A printed figure and its prediction.

    Args:
        paper: Key of the paper.
        table: The file of the table in ``reports/published``.
        row: The row's label there.
        method: Name of the method.
        settings: Settings that are not the method's defaults.
        printed: Bytes that the paper prints.
        predicted: Bytes predicted: reserved and the fitted constant.
        error: Predicted over printed, less one; a fraction.
        fitted: Whether the constant was fitted on this row.
        allocated_fp32: Bytes in tensors at the peak in fp32, which is no reading of the paper's kind.
    """

    paper: str
    table: str
    row: str
    method: str
    settings: Mapping[str, Any]
    printed: int
    predicted: int
    error: float
    fitted: bool
    allocated_fp32: int


@dataclass(frozen=True)
class Comparison:
    """All compared rows, and each paper's fitted constant in bytes."""

    rows: Sequence[ComparedRow]
    constants: Mapping[str, int]

    def document(self) -> dict[str, Any]:
        """The comparison as plain values."""
        return {"comparison": [asdict(row) for row in self.rows], "constants": dict(self.constants)}


@dataclass(frozen=True)
class _Row:
    table: str
    row: str
    method: str
    preload: bool | None = None
    fit: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Paper:
    key: str
    title: str
    backbone: str
    image_size: int
    batch_size: int
    precision: str
    attention_kernel: str
    evaluates: bool
    rows: Sequence[_Row]

    def job(self, row: _Row) -> PublishedJob:
        setting = (self.backbone, self.image_size, self.batch_size, self.precision, self.attention_kernel)
        return PublishedJob(setting, row.method, tuple(sorted(row.settings.items())), row.preload)

    def reserved(self, peak: PublishedPeak) -> int:
        return peak.reserved_evaluating if self.evaluates else peak.reserved


def printed_figures(backbone: str, image_size: int, batch_size: int) -> dict[str, dict[str, int]]:
    """Look up what the papers print for whole methods, where the setting is theirs.

    Args:
        backbone: timm's name, with or without its weight tag.
        image_size: Height and width in pixels.
        batch_size: Images a step.

    Returns:
        Bytes by paper, by method; nothing for another setting.
    """
    found: dict[str, dict[str, int]] = {}
    for paper in _papers():
        same = (resolve_backbone(paper.backbone).partition(".")[0], paper.image_size, paper.batch_size)
        if same == (backbone.partition(".")[0], image_size, batch_size):
            for row in paper.rows:
                if row.row == row.method:
                    found.setdefault(row.method, {})[paper.key] = _printed(row)
    return found


def jobs() -> list[PublishedJob]:
    """The runs behind all printed figures, each once."""
    return list(dict.fromkeys(paper.job(row) for paper in _papers() for row in paper.rows))


def run_job(job: PublishedJob, catalog_folders: Sequence[Path] = ()) -> PublishedPeak:
    """Predict a run in the form of the paper's authors.

    Args:
        job: The run.
        catalog_folders: Folders of the user's own catalogues.
    """
    catalog = Catalog(catalog_folders)
    config, in_fp32 = (_config(job, precision, catalog) for precision in (job.setting[3], "fp32"))
    assembled = assemble_as_published(config, catalog)
    training, evaluating = predict_as_published(config, assembled)
    training_fp32 = predict_training_as_published(in_fp32, assembled)
    return PublishedPeak(
        job,
        reserved=cast("int", training.reserved),
        reserved_evaluating=cast("int", evaluating.reserved),
        allocated_fp32=cast("int", training_fp32.allocated),
    )


def compare(peaks: Sequence[PublishedPeak]) -> Comparison:
    """Put predictions beside what is printed.

    The constant c of a paper minimises the sum of ((reserved + c) / printed - 1)^2 over the rows marked for it.

    Args:
        peaks: What `run_job` gave for all `jobs`.
    """
    known = {peak.job: peak for peak in peaks}
    rows, constants = [], {}
    for paper in _papers():
        pairs = [(row, known[paper.job(row)]) for row in paper.rows]
        constant = _fit([(_printed(row), paper.reserved(peak)) for row, peak in pairs if row.fit])
        constants[paper.key] = constant
        rows += [_compared(paper, row, peak, constant) for row, peak in pairs]
    return Comparison(rows, constants)


def _compared(paper: _Paper, row: _Row, peak: PublishedPeak, constant: int) -> ComparedRow:
    printed, predicted = _printed(row), paper.reserved(peak) + constant
    return ComparedRow(
        paper=paper.key,
        table=row.table,
        row=row.row,
        method=row.method,
        settings=row.settings,
        printed=printed,
        predicted=predicted,
        error=predicted / printed - 1,
        fitted=row.fit,
        allocated_fp32=peak.allocated_fp32,
    )


def _fit(pairs: Sequence[tuple[int, int]]) -> int:
    """The constant by least squares of the relative error: mean of printed less reserved, weighted by 1 / printed^2."""
    weights = [printed**-2 for printed, _ in pairs]
    gaps = [printed - reserved for printed, reserved in pairs]
    return round(sum(weight * gap for weight, gap in zip(weights, gaps, strict=True)) / sum(weights))


@cache
def _papers() -> tuple[_Paper, ...]:
    text = (shipped_folder("report") / _FOLDER / "settings.toml").read_text(encoding="utf-8")
    return tuple(
        _Paper(key=key, **(paper | {"rows": tuple(_Row(**row) for row in paper["rows"])}))
        for key, paper in tomllib.loads(text).items()
    )


@cache
def _table(name: str) -> Mapping[str, int]:
    """A table's memory column in bytes, by the label in its first column; the papers' MB are MiB."""
    with (shipped_folder("report") / _FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return {next(iter(line.values())): int(line["memory"]) * _MIB for line in csv.DictReader(file)}


def _printed(row: _Row) -> int:
    return _table(row.table)[row.row]


def _config(job: PublishedJob, precision: str, catalog: Catalog) -> RunConfig:
    backbone, image_size, batch_size, _, attention_kernel = job.setting
    request = Request(
        method=job.method,
        method_settings=dict(job.settings),
        dataset=_DATASET,
        backbone=backbone,
        weights="none",
        image_size=image_size,
        training={"batch_size": batch_size},
        preload=job.preload,
        device="cuda",
        precision=precision,
        attention_kernel=attention_kernel,
    )
    config = resolve(request, catalog, Path()).config
    # The authors keep what they preload in fp32.
    return config.model_copy(update={"cache_precision": "fp32" if config.preload else None})
