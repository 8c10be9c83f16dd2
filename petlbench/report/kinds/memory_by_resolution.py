"""Peak memory by image size: predicted for any machine, or as runs measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.errors import InputError
from petlbench.report.alignment import align
from petlbench.report.cells import mark_rows, mebibytes
from petlbench.report.context import peak
from petlbench.report.document import Axis, Column, Figure, Row, Series, Table
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.methods import describe_settings
from petlbench.report.selection import check_alike, common_settings
from petlbench.report.spec import PRESETS, ReportCard, ReportKind, ReportRequest
from petlbench.results.stored import Stored

if TYPE_CHECKING:
    from petlbench.study.forecast.memory import Row as Forecast


_CLASSES = 7
_SIZE = "image_size"

# Bytes by method and image size; None with the reason.
_Sizes = Mapping[str, Mapping[int, "tuple[int | None, str]"]]


def build(inputs: ReportInputs) -> Document:
    """Make the report: of what was predicted, or of what runs measured where the request says so.

    Raises:
        InputError: When a setting is unknown, or results are of settings that differ in more than the image size.
    """
    return _measured_report(inputs) if inputs.request.measured else _predicted_report(inputs)


RESOLUTIONS = ReportKind(name="resolutions", title="Peak memory by image size", build=build)


def _predicted_report(inputs: ReportInputs) -> Document:
    """Predict the memory of a training step for every method and image size; no result is read."""
    from petlbench.core.environment import usable_cores
    from petlbench.core.process_pool import open_workers
    from petlbench.core.request import Request
    from petlbench.study.forecast.memory import Extras, predict_rows
    from petlbench.study.forecast.memory import common_settings as predicted_settings
    from petlbench.study.grid import Grid, Vary

    card, request, catalog = inputs.card, inputs.request, inputs.catalog
    methods, common = card.study.methods, dict[str, Any]()
    if request.study is not None:
        methods, common = inputs.planned.methods, common_settings(inputs.stored.runs)
    if not methods:
        message = f"the study '{request.study}' names no methods, so nothing can be predicted of it"
        raise InputError(message, hint="leave --study out, or add --measured", kind="no_results")
    settings = _predicted_settings(card, request, common)
    vary = Vary("image-size", tuple(map(str, card.sizes)))
    base = Request(method="", device="cuda", weights="random", **settings)
    planned = Grid(list(methods), (), (0,), base, vary=vary).plans(catalog, Path())
    with open_workers(usable_cores()) as workers:
        rows = predict_rows(
            planned, _CLASSES, Extras(), folders=catalog.folders, workers=workers, progress=inputs.progress
        )
    sizes: dict[str, dict[int, tuple[int | None, str]]] = {}
    for row in rows:
        pixels = int(row.run.varied["image-size"])
        sizes.setdefault(row.run.method, {})[pixels] = _predicted(row, request.figure)
    common = predicted_settings([row.run for row in rows])
    training = {f"training.{name}": common[name] for name in ("batch_size", "optimizer")}
    words = describe_settings({**settings, **training, "backbone": common["backbone"]})
    caption = f"'{request.figure}', predicted for a training step on a CUDA device, {_CLASSES} classes: {words}."
    document = _document(card, "predicted", sizes, caption, inputs.titles)
    return replace(document, source="predicted by petlbench memory", settings=settings)


def _measured_report(inputs: ReportInputs) -> Document:
    """Show what runs measured at several image sizes."""
    card, request = inputs.card, inputs.request
    runs = inputs.finished
    check_alike(runs, but=(_SIZE, "training.epochs"))
    if not runs:
        raise InputError(f"no run in {request.results} has finished", hint="leave --measured out", kind="no_results")
    present = {run.method for run in runs}
    methods = [*(name for name in card.study.methods if name in present), *sorted(present - {*card.study.methods})]
    pixels = sorted({int(run.config[_SIZE]) for run in runs})
    sizes = {method: {size: _measured(runs, method, size, request.figure) for size in pixels} for method in methods}
    source = {str((run.document.get("memory") or {}).get("source")) for run in runs}
    words = describe_settings(common_settings(runs), but=(_SIZE, "training.epochs"))
    caption = f"'{request.figure}', peak of a training step, measured on {', '.join(sorted(source))}: {words}."
    document = _document(card, "measured", sizes, caption, inputs.titles)
    documents = [dict(run.document) | {"folder": str(run.folder or "")} for run in runs]
    notes, settings = inputs.passed_over(), common_settings(runs)
    return replace(document, notes=notes, runs=documents, source=inputs.source, settings=settings)


def _predicted_settings(card: ReportCard, request: ReportRequest, common: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a run's request: the card's, what runs have in common, the preset's, and those of ``where``.

    Where neither a preset nor runs say otherwise, they are as published.
    """
    names = {"backbone", "precision", "attention_kernel", "checkpointing"}
    settings: dict[str, Any] = {name: value for name, value in card.study.request.items() if name in names}
    settings |= PRESETS["as-published"]
    settings |= {name: common[name] for name in names if common.get(name) is not None}
    settings |= PRESETS.get(request.preset, {})
    published = card.study.request.get("training", {}).get("batch_size", 16)
    training = {"batch_size": common.get("training.batch_size") or published}
    for key, value in request.where.items():
        group, dot, name = key.partition(".")
        if dot and group == "training":
            training[name] = value
        elif key in names:
            settings[key] = value if key != "checkpointing" else value == "true"
        else:
            raise InputError(
                f"--where {key}={value}: memory is predicted here, and that is no part of it",
                hint=f"known: {', '.join(sorted(names))}, training.batch_size; or add --measured",
                kind="bad_setting",
            )
    return {**settings, "training": training}


def _predicted(row: Forecast, figure: str) -> tuple[int | None, str]:
    if row.memory is None:
        return None, row.refused or "it cannot be predicted"
    return getattr(row.memory, figure, None), f"'{figure}' is not predicted"


def _measured(runs: Sequence[Stored], method: str, size: int, figure: str) -> tuple[int | None, str]:
    mine = [run for run in runs if run.method == method and run.config[_SIZE] == size]
    return peak(mine, figure), f"'{figure}' is not measured there" if mine else "not run"


def _document(card: ReportCard, how: str, bytes_: _Sizes, caption: str, titles: Mapping[str, str]) -> Document:
    sizes = sorted({size for by_size in bytes_.values() for size in by_size})
    columns = [Column(f"size_{size}", f"{size} pixels", "MiB", "lower") for size in sizes]
    axes = (Axis("pixels", "image size", "pixels"), Axis("memory", f"peak memory of a training step, {how}", "GiB"))
    title = f"{card.title}, {how}"
    rows, series = [], []
    for method, by_size in bytes_.items():
        cells = {f"size_{size}": mebibytes(value, reason) for size, (value, reason) in by_size.items()}
        rows.append(Row(method, titles.get(method, method), cells))
        points = [(float(size), value / 2**30) for size, (value, _) in sorted(by_size.items()) if value is not None]
        if points:
            values = {"pixels": [size for size, _ in points], "memory": [value for _, value in points]}
            series.append(Series(method, titles.get(method, method), values))
    rows = mark_rows(rows, columns)
    table = Table("main", title, columns, rows, f"{caption} Best bold, second underlined.")
    figure = Figure.of("memory", "lines", title, axes, series, caption=caption)
    return Document(card.name, title, [align(table)], [figure])
