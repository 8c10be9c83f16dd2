"""The runs behind the papers' memory figures, predicted as their authors carried them out: ``--compare papers``.

The papers print what torch reserved, and a CUDA context of a size that is not known. That one constant is fitted on
some rows of a paper, and the other rows are predicted with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.process_pool import Workers
from petlbench.core.progress import Progress
from petlbench.core.request import Request
from petlbench.memory.shape_cache import shared_shapes
from petlbench.run.resolve import resolve
from petlbench.study.forecast.papers import Paper, PaperRow, papers
from tools.authors_loop import assemble_as_published, predict_as_published, predict_training_as_published

__all__ = [
    "ComparedRow",
    "Comparison",
    "PublishedJob",
    "PublishedPeak",
    "compare",
    "compare_papers",
    "jobs",
    "run_job",
]

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


def compare_papers(folders: Sequence[Path], workers: Workers, progress: Progress) -> Comparison:
    """Every figure that the papers print beside its prediction.

    Args:
        folders: Folders of the user's own catalogues.
        workers: Who predicts.
        progress: Told what goes on.
    """
    runs = jobs()
    progress.phase("predicting the papers", len(runs))
    return compare(workers.map(partial(run_job, catalog_folders=tuple(folders)), runs, progress.advance))


def jobs() -> list[PublishedJob]:
    """The runs behind all printed figures, each once."""
    return list(dict.fromkeys(_job(paper, row) for paper in papers() for row in paper.rows))


def run_job(job: PublishedJob, catalog_folders: Sequence[Path] = ()) -> PublishedPeak:
    """What a run in the form of the paper's authors takes.

    Args:
        job: The run.
        catalog_folders: Folders of the user's own catalogues.
    """
    catalog = Catalog(catalog_folders)
    config, in_fp32 = (_config(job, precision, catalog) for precision in (job.setting[3], "fp32"))
    with shared_shapes():
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
    """Predictions beside what is printed.

    The constant c of a paper minimises the sum of ((reserved + c) / printed - 1)^2 over the rows marked for it.

    Args:
        peaks: What `run_job` gave for all `jobs`.
    """
    by_job = {peak.job: peak for peak in peaks}
    rows, constants = [], {}
    for paper in papers():
        pairs = [(row, by_job[_job(paper, row)]) for row in paper.rows]
        constant = _fit([(row.printed, _reserved(paper, peak)) for row, peak in pairs if row.fit])
        constants[paper.key] = constant
        rows += [_compared(paper, row, peak, constant) for row, peak in pairs]
    return Comparison(rows, constants)


def _job(paper: Paper, row: PaperRow) -> PublishedJob:
    setting = (paper.backbone, paper.image_size, paper.batch_size, paper.precision, paper.attention_kernel)
    return PublishedJob(setting, row.method, tuple(sorted(row.settings.items())), row.preload)


def _reserved(paper: Paper, peak: PublishedPeak) -> int:
    return peak.reserved_evaluating if paper.evaluates else peak.reserved


def _compared(paper: Paper, row: PaperRow, peak: PublishedPeak, constant: int) -> ComparedRow:
    predicted = _reserved(paper, peak) + constant
    return ComparedRow(
        paper=paper.key,
        table=row.table,
        row=row.row,
        method=row.method,
        settings=row.settings,
        printed=row.printed,
        predicted=predicted,
        error=predicted / row.printed - 1,
        fitted=row.fit,
        allocated_fp32=peak.allocated_fp32,
    )


def _fit(pairs: Sequence[tuple[int, int]]) -> int:
    """The constant by least squares of the relative error: mean of printed less reserved, weighted by 1 / printed^2."""
    weights = [printed**-2 for printed, _ in pairs]
    gaps = [printed - reserved for printed, reserved in pairs]
    return round(sum(weight * gap for weight, gap in zip(weights, gaps, strict=True)) / sum(weights))


def _config(job: PublishedJob, precision: str, catalog: Catalog) -> RunConfig:
    backbone, image_size, batch_size, _, attention_kernel = job.setting
    request = Request(
        method=job.method,
        method_settings=dict(job.settings),
        dataset=_DATASET,
        backbone=backbone,
        weights="random",
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
