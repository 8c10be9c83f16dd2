"""What methods would take, as a report: predicted peaks, their parts, what fits, what other settings would save."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from statistics import fmean
from typing import TYPE_CHECKING, Any

from petlbench.core.errors import InputError
from petlbench.report.alignment import align
from petlbench.report.cells import mebibytes, number_cell
from petlbench.report.document import Axis, Cell, Column, Figure, Series, Table, table_of
from petlbench.report.formats import Document
from petlbench.report.look import Look
from petlbench.study.forecast.memory import LARGEST, SAVINGS, Extras, Row

if TYPE_CHECKING:
    from petlbench.study.grid import Vary
    from tools.published_memory import Comparison


_PARTS = ("parameters", "gradients", "optimizer", "activations", "other")
_GIB = 2**30
_PRINTED = (
    "Printed: as nvidia-smi showed it, in fp16 with eager attention as far as is known; no figure of this table is one "
    "of that kind"
)

# A column, and what stands in it of a row.
_Maker = tuple[Column, "Callable[[Row], Cell]"]


@dataclass(frozen=True)
class Forecast:
    """What was predicted.

    Args:
        rows: One a method and value.
        extras: What was predicted beside the peak.
        config: What holds for all rows.
        varied: What takes several values, or None.
        comparison: The papers' tables, or None.
    """

    rows: Sequence[Row]
    extras: Extras
    config: Mapping[str, Any]
    varied: Vary | None = None
    comparison: Comparison | None = None

    @property
    def device(self) -> str:
        """The device, ``cuda`` or ``cpu``."""
        return str(self.config["device"])

    @property
    def deciding(self) -> str:
        """The figure that decides what fits."""
        return "process" if self.device == "cuda" else "allocated"


def memory_document(forecast: Forecast) -> Document:
    """The report of a forecast."""
    tables = _peaks(forecast) if forecast.varied is None else _by_value(forecast, forecast.varied)
    return Document(
        "memory",
        "Peak memory of a training step, predicted",
        [*map(align, tables), *_refused(forecast.rows), *(_papers(forecast.comparison) if forecast.comparison else ())],
        [memory_figure(forecast)] if _predicted(forecast.rows) else [],
        source="predicted by petlbench memory",
        settings=forecast.config,
    )


def memory_figure(forecast: Forecast) -> Figure:
    """Memory over what is varied, one line or group of bars a method; else what the peak of each method is made of.

    Raises:
        InputError: When there is nothing to draw.
    """
    rows = _predicted(forecast.rows)
    if not rows:
        reason = forecast.rows[0].refused
        raise InputError(f"--figure: there is nothing to draw: {reason}", hint="leave it out", kind="no_figure")
    device = "CUDA" if forecast.device == "cuda" else "the CPU"
    if forecast.varied is not None:
        return _curves(rows, forecast, forecast.varied, device)
    look = Look.of()
    methods = [look.title(row.run.method) for row in rows]
    parts = [(row.memory.parts or {}) if row.memory is not None else {} for row in rows]
    series = [Series(name, name, {"memory": [each.get(name, 0) / _GIB for each in parts]}, methods) for name in _PARTS]
    title = f"Predicted allocated memory at the peak of a training step on {device}"
    axes = (Axis("method", "method"), Axis("memory", "predicted allocated memory", "GiB"))
    return Figure.of("parts", "bars", title, axes, series, marks={"stacked": True})


def _curves(rows: Sequence[Row], forecast: Forecast, varied: Vary, device: str) -> Figure:
    values = list(dict.fromkeys(row.run.varied[varied.name] for row in rows))
    is_numeric = all(isinstance(value, int | float) for value in values)
    values = sorted(values) if is_numeric else values
    series, look = [], Look.of()
    for method in dict.fromkeys(row.run.method for row in rows):
        sizes = {row.run.varied[varied.name]: (row.figure or 0) / _GIB for row in rows if row.run.method == method}
        points: dict[str, list[float | None]] = {"memory": [sizes.get(value) for value in values]}
        if is_numeric:
            points["value"] = [float(value) for value in values]
        series.append(Series(method, look.title(method), points, () if is_numeric else list(map(str, values))))
    budget = forecast.extras.budget
    return Figure.of(
        "memory",
        "lines" if is_numeric else "bars",
        f"Predicted {forecast.deciding} memory of a training step on {device}",
        (Axis("value", varied.name), Axis("memory", f"predicted {forecast.deciding} memory", "GiB")),
        series,
        caption="" if budget is None else "Dashed: the budget.",
        marks={"from_zero": True} | ({} if budget is None else {"line": budget / _GIB}),
    )


def _predicted(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.memory is not None]


def _peaks(forecast: Forecast) -> Iterator[Table]:
    device, extras = forecast.device, forecast.extras
    names = ("allocated", "reserved", "process") if device == "cuda" else ("allocated",)
    papers = dict.fromkeys(paper for row in forecast.rows for paper in row.printed or {})
    makers = [
        *(_bytes(name, attrgetter(f"memory.{name}")) for name in names),
        *(_bytes(name, partial(_of, attrgetter("memory.parts"), name)) for name in _PARTS),
        *(_bytes(f"printed, {paper}", partial(_of, attrgetter("printed"), paper)) for paper in papers),
    ]
    makers += [_prediction(forecast)] if extras.inference else []
    makers += _BUDGET if extras.budget is not None else []
    sentences = [_settings(forecast.config), *_explained(forecast), *([_PRINTED] if papers else [])]
    title = f"peak memory of a training step: MiB, predicted for {device}"
    yield from _table("main", title, makers, forecast.rows, ". ".join(sentences) + ".")
    if extras.savings:
        caption = "A dash: on already, or not for this method. Below zero: costs."
        yield from _table("savings", "would save, MiB", _SAVINGS, forecast.rows, caption)


def _table(key: str, title: str, makers: Sequence[_Maker], rows: Sequence[Row], caption: str) -> Iterator[Table]:
    """The table of those rows that were predicted, if there are any."""
    predicted = _predicted(rows)
    if predicted:
        cells: list[list[Cell | str]] = [[row.run.method, *(make(row) for _, make in makers)] for row in predicted]
        yield table_of(key, title, [Column("method", "method"), *(column for column, _ in makers)], cells, caption)


def _bytes(title: str, size: Callable[[Row], int | None]) -> _Maker:
    return Column(title.replace(", ", "_").replace(" ", "_"), title), lambda row: mebibytes(size(row))


def _of(figures: Callable[[Row], Mapping[str, int | None] | None], name: str, row: Row) -> int | None:
    """One of several figures of a row, where it has them."""
    return (figures(row) or {}).get(name)


def _prediction(forecast: Forecast) -> _Maker:
    name = forecast.deciding
    return _bytes(f"prediction, {name}", lambda row: getattr(row.inference, name, None))


def _largest(row: Row) -> Cell:
    size = row.max_batch_size
    return number_cell(size, 0) if size is None or size < LARGEST else Cell(size, f">= {LARGEST:,}")


_BUDGET: list[_Maker] = [
    (Column("fits", "fits", numeric=False), lambda row: Cell(text="yes" if row.fits else "no")),
    (Column("largest_batch", "largest batch"), _largest),
]
_SAVINGS = [_bytes(name, partial(_of, attrgetter("savings"), name)) for name in SAVINGS]


def _settings(config: Mapping[str, Any]) -> str:
    """What holds for the whole table, in words."""
    words = {
        "backbone": "{}",
        "image_size": "{} pixels",
        "batch_size": "batch size {}",
        "precision": "{}",
        "attention_kernel": "attention {}",
        "optimizer": "{}",
        "classes": "{} classes",
    }
    parts = [text.format(config[name]) for name, text in words.items() if config[name] is not None]
    parts += ["checkpointing"] if config["checkpointing"] else []
    parts += [f"in {config['accumulate']} micro-batches"] if config["accumulate"] not in {None, 1} else []
    parts += [f"{group}.{key}={value}" for group, values in config["settings"].items() for key, value in values.items()]
    return ", ".join(parts)


def _explained(forecast: Forecast) -> list[str]:
    context, budget = forecast.extras.context, forecast.extras.budget
    sentences = []
    if forecast.device == "cuda":
        size = mebibytes(context).text
        sentences.append(f"Process: reserved and {size} MiB for the CUDA context (--context-mib)")
    if budget is not None:
        sentences.append(f"Fits: {forecast.deciding} within {mebibytes(budget).text} MiB")
    return sentences


def _by_value(forecast: Forecast, varied: Vary) -> Iterator[Table]:
    name, device, extras = forecast.deciding, forecast.device, forecast.extras
    title = f"{name} memory of a training step by {varied.name}: MiB, predicted for {device}"
    caption = ". ".join([_settings(forecast.config), *_explained(forecast)]) + "."
    yield _grid("main", title, forecast, varied, lambda row: mebibytes(row.figure), caption=caption)
    if extras.inference:
        title = f"{name} memory of predicting one batch by {varied.name}: MiB, predicted for {device}"
        yield _grid("inference", title, forecast, varied, _prediction(forecast)[1])
    if extras.budget is not None:
        yield _grid("batch", f"largest batch size that fits, by {varied.name}", forecast, varied, _largest)
    if extras.savings:
        for column, make in _SAVINGS:
            title = f"{column.title} would save, by {varied.name}: MiB"
            yield _grid(f"savings-{column.key}", title, forecast, varied, make)


def _grid(
    key: str, title: str, forecast: Forecast, varied: Vary, make: Callable[[Row], Cell], *, caption: str = ""
) -> Table:
    by_method: dict[str, list[Cell | str]] = {}
    for row in forecast.rows:
        method = row.run.method
        by_method.setdefault(method, [method]).append(make(row))
    columns = [Column("method", "method"), *(Column(str(value), str(value)) for value in varied.values)]
    return table_of(key, title, columns, by_method.values(), caption)


def _refused(rows: Sequence[Row]) -> Iterator[Table]:
    refused = [row for row in rows if row.refused is not None]
    texts = {
        "method": [row.run.method for row in refused],
        "at": [", ".join(f"{name} {value}" for name, value in row.run.varied.items()) for row in refused],
        "why": [row.refused or "" for row in refused],
    }
    if refused:
        shown = {name: values for name, values in texts.items() if any(values)}
        columns = [Column(name, name, numeric=name == "method") for name in shown]
        yield table_of("refused", "not predicted", columns, list(zip(*shown.values(), strict=True)))


def _papers(comparison: Comparison) -> Iterator[Table]:
    columns = [
        Column("paper", "paper"),
        *(Column(name, name, numeric=False) for name in ("row", "method")),
        *(Column(name, name) for name in ("printed", "predicted")),
        Column("error", "error", "%"),
        Column("this_row_is", "this row is", numeric=False),
        Column("fp32_allocated", "fp32 allocated"),
    ]
    rows = [
        [
            row.paper,
            row.row,
            row.method,
            mebibytes(row.printed),
            mebibytes(row.predicted),
            number_cell(100 * row.error, 1),
            "fitted on" if row.fitted else "predicted",
            mebibytes(row.allocated_fp32),
        ]
        for row in comparison.rows
    ]
    caption = " ".join(_summary(comparison, paper) for paper in comparison.constants)
    title = "the papers' memory figures: MiB, predicted in their own form"
    yield table_of("papers", title, columns, rows, caption)


def _summary(comparison: Comparison, paper: str) -> str:
    """What was fitted for a paper, and how well the rest is predicted."""
    errors = [100 * abs(row.error) for row in comparison.rows if row.paper == paper and not row.fitted]
    constant = mebibytes(comparison.constants[paper]).text
    sentence = f"{paper}: a constant of {constant} MiB, fitted on the rows marked so"
    if not errors:
        return f"{sentence}."
    return f"{sentence}; the others are off by {fmean(errors):.1f} % on average, {max(errors):.1f} % at most."
