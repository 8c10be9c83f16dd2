"""Peak memory by image size: predicted for any machine, or as runs measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.report.cells import MIB, mark_best, number_cell
from petlbench.report.document import Axis, Cell, Column, Document, Figure, Row, Series, Table
from petlbench.report.kinds.methods_table import describe_settings
from petlbench.report.request import Asked, Material
from petlbench.report.selection import check_alike, common_settings
from petlbench.report.spec import SETTINGS, ReportCard
from petlbench.results.table import Stored

if TYPE_CHECKING:
    from petlbench.study.forecast.memory import Row as Forecast

__all__ = ["measured_report", "predicted_report"]

_CLASSES = 7
_SIZE = "image_size"

# Bytes by method and image size; None with the reason.
_Sizes = Mapping[str, Mapping[int, "tuple[int | None, str]"]]


def predicted_report(card: ReportCard, asked: Asked, catalog: Catalog, progress: Progress) -> Document:
    """Predict the memory of a training step for every method and image size; no result is read.

    Args:
        card: The report.
        asked: What the user asks for; of ``where``, backbone, precision, attention_kernel and training.* count.
        catalog: The catalogues.
        progress: Told what goes on.

    Raises:
        InputError: When a setting is unknown.
    """
    from petlbench.core.environment import usable_cores
    from petlbench.core.process_pool import open_workers
    from petlbench.run.resolve import Request
    from petlbench.study.forecast.memory import Extras, predict_rows
    from petlbench.study.forecast.memory import common_settings as predicted_settings
    from petlbench.study.grid import Grid
    from petlbench.study.vary import Vary

    settings = _predicted_settings(card, asked)
    request = Request(method="", device="cuda", weights="none", **settings)
    vary = Vary("image-size", tuple(map(str, card.sizes)))
    planned = Grid(list(card.study.methods), (), (0,), request, vary=vary).plans(catalog, Path())
    with open_workers(usable_cores()) as workers:
        rows = predict_rows(planned, _CLASSES, Extras(), folders=catalog.folders, workers=workers, progress=progress)
    found: dict[str, dict[int, tuple[int | None, str]]] = {}
    for row in rows:
        size = int(row.run.varied["image-size"])
        found.setdefault(row.run.method, {})[size] = _predicted(row, asked.figure)
    common = predicted_settings([row.run for row in rows])
    training = {f"training.{name}": common[name] for name in ("batch_size", "optimizer")}
    words = describe_settings({**settings, **training, "backbone": common["backbone"]})
    caption = f"'{asked.figure}', predicted for a training step on a CUDA device, {_CLASSES} classes: {words}."
    document = _document(card, found, caption, _titles(catalog))
    return replace(document, source="predicted by petlbench memory", settings=settings)


def measured_report(material: Material) -> Document:
    """Show what runs measured at several image sizes.

    Args:
        material: The results.

    Raises:
        InputError: When they are of settings that differ in more than the image size.
    """
    card, asked = material.card, material.asked
    runs = material.finished
    check_alike(runs, but=(_SIZE, "training.epochs"))
    if not runs:
        raise InputError(f"no run in {asked.results} has finished", hint="leave --measured out", kind="no_results")
    methods = [name for name in card.study.methods if any(one.method == name for one in runs)]
    methods += sorted({one.method for one in runs} - set(methods))
    sizes = sorted({int(one.config[_SIZE]) for one in runs})
    found = {method: {size: _measured(runs, method, size, asked.figure) for size in sizes} for method in methods}
    source = {str((one.document.get("memory") or {}).get("source")) for one in runs}
    words = describe_settings(common_settings(runs), but=(_SIZE, "training.epochs"))
    caption = f"'{asked.figure}', peak of a training step, measured on {', '.join(sorted(source))}: {words}."
    document = _document(card, found, caption, _titles(material.catalog))
    documents = [dict(one.document) | {"folder": str(one.folder or "")} for one in runs]
    return replace(document, runs=documents, source=material.source, settings=common_settings(runs))


def _predicted_settings(card: ReportCard, asked: Asked) -> dict[str, Any]:
    """Fields of a request: the card's, the standard setting's (as-published by default), and what was asked for."""
    known = {"backbone", "precision", "attention_kernel", "checkpointing"}
    given: dict[str, Any] = {name: value for name, value in card.study.request.items() if name in known}
    given |= SETTINGS["as-published" if asked.setting == "any" else asked.setting]
    training = {"batch_size": card.study.request.get("training", {}).get("batch_size", 16)}
    for key, value in asked.where.items():
        group, dot, name = key.partition(".")
        if dot and group == "training":
            training[name] = value
        elif key in known:
            given[key] = value if key != "checkpointing" else value == "true"
        else:
            raise InputError(
                f"--where {key}={value}: memory is predicted here, and that is no part of it",
                hint=f"known: {', '.join(sorted(known))}, training.batch_size; or add --measured",
                kind="bad_setting",
            )
    return {**given, "training": training}


def _predicted(row: Forecast, figure: str) -> tuple[int | None, str]:
    if row.memory is None:
        return None, row.refused or "it cannot be predicted"
    return getattr(row.memory, figure), f"'{figure}' is not predicted"


def _measured(runs: Sequence[Stored], method: str, size: int, figure: str) -> tuple[int | None, str]:
    mine = [one for one in runs if one.method == method and one.config[_SIZE] == size]
    known = [bytes_ for one in mine if (bytes_ := one.memory(figure)) is not None]
    return max(known, default=None), f"'{figure}' is not measured there" if mine else "not run"


def _document(card: ReportCard, found: _Sizes, caption: str, titles: Mapping[str, str]) -> Document:
    sizes = sorted({size for by_size in found.values() for size in by_size})
    columns = [Column(f"size_{size}", f"{size} pixels", "MiB", "lower") for size in sizes]
    by_column = {
        f"size_{size}": mark_best([_cell(*by_size[size]) for by_size in found.values()], "lower") for size in sizes
    }
    rows = [
        Row(method, titles.get(method, method), {key: cells[number] for key, cells in by_column.items()})
        for number, method in enumerate(found)
    ]
    table = Table("main", card.title, columns, rows, f"{caption} Best bold, second underlined.")
    return Document(card.name, card.title, [table], [_figure(card, found, caption, titles)])


def _figure(card: ReportCard, found: _Sizes, caption: str, titles: Mapping[str, str]) -> Figure:
    axes = (Axis("pixels", "image size", "pixels"), Axis("memory", "peak memory of a training step", "GiB"))
    series = []
    for method, by_size in found.items():
        known = [(float(size), value / 2**30) for size, (value, _) in sorted(by_size.items()) if value is not None]
        if known:
            values = {"pixels": [size for size, _ in known], "memory": [value for _, value in known]}
            series.append(Series(method, titles.get(method, method), values))
    return Figure("memory", "lines", card.title, axes, "pixels", "memory", series, caption=caption)


def _cell(size: int | None, reason: str) -> Cell:
    return number_cell(None if size is None else size / MIB, 1, reason)


def _titles(catalog: Catalog) -> dict[str, str]:
    return {name: entry.title for name, entry in catalog.entries("method").items()}
