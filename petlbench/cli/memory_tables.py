"""The tables of ``petlbench memory``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from petlbench.cli.output import MISSING, mebibytes, percent, print_table

if TYPE_CHECKING:
    from petlbench.study.forecast.memory import Extras, Row
    from petlbench.study.forecast.papers import Comparison
    from petlbench.study.vary import Vary

__all__ = ["print_forecast"]

_PARTS = ("parameters", "gradients", "optimizer", "activations", "other")

# A heading, and what stands under it in a row.
_Column = tuple[str, "Callable[[Row], str]"]


def print_forecast(
    rows: Sequence[Row],
    extras: Extras,
    comparison: Comparison | None,
    varied: Vary | None,
    config: Mapping[str, Any],
) -> None:
    """Print what was predicted.

    Args:
        rows: One a method and value.
        extras: What was predicted beside the peak.
        comparison: The papers' tables, or None.
        varied: What takes several values, or None.
        config: What holds for all rows.
    """
    if varied is None:
        _print_peaks(rows, extras, config)
    else:
        _print_by_value(rows, extras, varied, config)
    _print_refused(rows)
    if comparison is not None:
        _print_comparison(comparison)


def _print_peaks(rows: Sequence[Row], extras: Extras, config: Mapping[str, Any]) -> None:
    device = config["device"]
    columns = [*_figures(device), *_parts()]
    papers = dict.fromkeys(paper for row in rows for paper in row.printed or {})
    columns += [_printed(paper) for paper in papers]
    columns += _prediction(device) if extras.inference else []
    columns += _fitting() if extras.budget is not None else []
    told = [_settings(config), *_explained(extras, device), *(_PRINTED if papers else ())]
    _print(f"peak memory of a training step: MiB, predicted for {device}", columns, rows, ". ".join(told) + ".")
    if extras.savings:
        _print("would save, MiB", _savings(), rows, "A dash: on already, or not for this method. Below zero: costs.")


def _print(title: str, columns: Sequence[_Column], rows: Sequence[Row], caption: str = "") -> None:
    shown = [row for row in rows if row.memory is not None]
    if shown:
        cells = [[row.run.method, *(cell(row) for _, cell in columns)] for row in shown]
        print_table(title, ["method", *(f"{heading}>" for heading, _ in columns)], cells, caption=caption)


_PRINTED = (
    "Printed: as nvidia-smi showed it, in fp16 with eager attention as far as is known; no figure of this table is one "
    "of that kind",
)


def _figures(device: str) -> list[_Column]:
    names = ("allocated", "reserved", "process") if device == "cuda" else ("allocated",)
    return [(name, lambda row, name=name: mebibytes(getattr(row.memory, name))) for name in names]  # type: ignore[misc]


def _parts() -> list[_Column]:
    return [(name, lambda row, name=name: mebibytes(_parts_of(row).get(name))) for name in _PARTS]  # type: ignore[misc]


def _parts_of(row: Row) -> Mapping[str, int]:
    return row.memory.parts or {} if row.memory is not None else {}


def _printed(paper: str) -> _Column:
    return f"printed, {paper}", lambda row: mebibytes((row.printed or {}).get(paper))


def _prediction(device: str) -> list[_Column]:
    name = _deciding(device)
    return [(f"prediction, {name}", lambda row: mebibytes(getattr(row.inference, name, None)))]


def _fitting() -> list[_Column]:
    return [("fits", lambda row: "yes" if row.fits else "no"), ("largest batch", _largest)]


def _largest(row: Row) -> str:
    from petlbench.study.forecast.batch_size import LARGEST

    if row.max_batch_size is None:
        return MISSING
    return f"{row.max_batch_size:,}" if row.max_batch_size < LARGEST else f">= {LARGEST:,}"


def _savings() -> list[_Column]:
    from petlbench.study.forecast.memory import SAVINGS

    return [(name, lambda row, name=name: mebibytes((row.savings or {}).get(name))) for name in SAVINGS]  # type: ignore[misc]


def _deciding(device: str) -> str:
    return "process" if device == "cuda" else "allocated"


def _settings(config: Mapping[str, Any], but: str = "") -> str:
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
    said = [text.format(config[name]) for name, text in words.items() if config[name] is not None and name != but]
    said += ["checkpointing"] if config["checkpointing"] else []
    said += (
        [f"in {config['accumulate']} pieces"] if config["accumulate"] not in {None, 1} and but != "accumulate" else []
    )
    said += [f"{group}.{key}={value}" for group, given in config["settings"].items() for key, value in given.items()]
    return ", ".join(said)


def _explained(extras: Extras, device: str) -> list[str]:
    told = []
    if device == "cuda":
        told.append(f"Process: reserved and {mebibytes(extras.context)} MiB for the CUDA context (--context-mib)")
    if extras.budget is not None:
        told.append(f"Fits: {_deciding(device)} within {mebibytes(extras.budget)} MiB")
    return told


def _print_by_value(rows: Sequence[Row], extras: Extras, varied: Vary, config: Mapping[str, Any]) -> None:
    device = config["device"]
    name = _deciding(device)
    told = ". ".join([_settings(config), *_explained(extras, device)]) + "."
    _print_grid(
        f"{name} memory of a training step by {varied.name}: MiB, predicted for {device}",
        rows,
        varied,
        lambda row: mebibytes(row.figure),
        told,
    )
    if extras.inference:
        title = f"{name} memory of predicting one batch by {varied.name}: MiB, predicted for {device}"
        _print_grid(title, rows, varied, lambda row: mebibytes(getattr(row.inference, name, None)))
    if extras.budget is not None:
        _print_grid(f"largest batch size that fits, by {varied.name}", rows, varied, _largest)
    if extras.savings:
        for saving, cell in _savings():
            _print_grid(f"{saving} would save, by {varied.name}: MiB", rows, varied, cell)


def _print_grid(title: str, rows: Sequence[Row], varied: Vary, cell: Callable[[Row], str], caption: str = "") -> None:
    by_method: dict[str, list[str]] = {}
    for row in rows:
        by_method.setdefault(row.run.method, []).append(cell(row))
    cells = [[name, *values] for name, values in by_method.items()]
    print_table(title, ["method", *(f"{value}>" for value in varied.values)], cells, caption=caption)


def _print_refused(rows: Sequence[Row]) -> None:
    refused = [row for row in rows if row.refused is not None]
    if refused:
        cells = [[row.run.method, _value(row), row.refused or ""] for row in refused]
        columns = ["method", "at", "why"]
        if not any(_value(row) for row in refused):
            columns, cells = ["method", "why"], [[method, why] for method, _, why in cells]
        print_table("not predicted", columns, cells)


def _value(row: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.run.varied.items())


def _print_comparison(comparison: Comparison) -> None:
    cells = [
        [
            row.paper,
            row.row,
            row.method,
            mebibytes(row.printed),
            mebibytes(row.predicted),
            percent(row.error, 1),
            "fitted on" if row.fitted else "predicted",
            mebibytes(row.allocated_fp32),
        ]
        for row in comparison.rows
    ]
    columns = ["paper", "row", "method", "printed>", "predicted>", "error, %>", "this row is", "fp32 allocated>"]
    caption = " ".join(_summary(comparison, paper) for paper in comparison.constants)
    print_table("the papers' memory figures: MiB, predicted in their own form", columns, cells, caption=caption)


def _summary(comparison: Comparison, paper: str) -> str:
    """What was fitted for a paper, and how well the rest is predicted."""
    errors = [abs(row.error) for row in comparison.rows if row.paper == paper and not row.fitted]
    constant = mebibytes(comparison.constants[paper])
    said = f"{paper}: a constant of {constant} MiB, fitted on the rows marked so"
    if not errors:
        return f"{said}."
    return (
        f"{said}; the others are off by {percent(fmean(errors), 1)} % on average, {percent(max(errors), 1)} % at most."
    )
