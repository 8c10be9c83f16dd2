"""Tables of methods, or of variants of a method: rows with score, parameters, memory and what weighs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from petlbench.report.cells import mark_best
from petlbench.report.columns import Maker
from petlbench.report.commands import fill_command
from petlbench.report.context import Context
from petlbench.report.document import Cell, Column, Row, Table
from petlbench.report.selection import common_settings
from petlbench.results.stored import Stored

__all__ = ["describe_settings", "methods_table"]

_MARKED = "Best bold, second underlined."
_FRONT = (
    "Front 1: no other row is at least as good in average, memory, learnable parameters and time of a run at once; "
    "front 2: only rows of front 1 are; and so on."
)


def methods_table(
    title: str, makers: Sequence[Maker], context: Context, *, output: str = "", variants_of: str = ""
) -> Table:
    """Fill a table.

    Args:
        title: Its title.
        makers: Its columns.
        context: The results.
        output: Folder of the results, for the commands in notes; empty where it is none.
        variants_of: Name of the report where its rows are variants; empty where they are methods.
    """
    lines = context.grid.lines
    by_column = {
        maker.column.key: mark_best([maker.make(line, context) for line in lines], maker.column.better)
        for maker in makers
    }
    rows = [
        Row(
            line.key,
            line.title,
            {name: cells[number] for name, cells in by_column.items()},
            runs=tuple(one.run_id for one in line.all_runs),
        )
        for number, line in enumerate(lines)
    ]
    columns = [maker.column for maker in makers]
    row_title = "variant" if variants_of else "method"
    commands = _commands(columns, context, output, variants_of)
    notes = _notes(columns, rows, context)
    return Table("main", title, columns, rows, _caption(columns, context), notes, row_title, commands)


def describe_settings(settings: Mapping[str, Any], but: Sequence[str] = ()) -> str:
    """The settings that results have in common, in words.

    Args:
        settings: As `petlbench.report.selection.common_settings` gives them.
        but: Keys that are left out.
    """
    words = {
        "backbone": "{}",
        "weights": "weights {}",
        "image_size": "{} pixels",
        "training.batch_size": "batch size {}",
        "training.epochs": "{} epochs",
        "training.optimizer": "{}",
        "precision": "{}",
        "attention_kernel": "attention {}",
        "device": "on {}",
    }
    usual = {("weights", "default")}
    said = [
        text.format(settings[key]) if (key, settings[key]) != ("training.epochs", 1) else "1 epoch"
        for key, text in words.items()
        if settings.get(key) is not None and key not in but and (key, settings[key]) not in usual
    ]
    said.append("with checkpointing" if settings.get("checkpointing") else "no checkpointing")
    if settings.get("training.accumulate") not in (None, 1):
        said.append(f"batches in {settings['training.accumulate']} pieces")
    return ", ".join(said)


def _caption(columns: Sequence[Column], context: Context) -> str:
    runs = _runs(context)
    keys = {column.key for column in columns}
    said = []
    if keys & set(context.grid.datasets) or "average" in keys:
        said.append(f"{_capital(context.metric.title)} of the test split, mean ± standard deviation over runs.")
    if runs:
        said.append(f"Setting: {describe_settings(common_settings(runs))}.")
        if "memory" in keys:
            source = runs[0].document.get("memory") or {}
            said.append(
                f"Memory: '{context.figure}', peak of a training step, measured on {source.get('source')}; "
                "PME refers to full fine-tuning in the same setting."
            )
        if "cache" in keys:
            said.append(
                "Preloading: the peak of computing frozen features once; feature cache: their size on the disk."
            )
    said.append(_MARKED)
    return " ".join([*said, _FRONT] if "front" in keys else said)


def _runs(context: Context) -> list[Stored]:
    return [one for line in context.grid.lines for one in line.all_runs]


def _commands(columns: Sequence[Column], context: Context, output: str, report: str) -> list[str]:
    """What would fill the empty cells."""
    missing = [
        (line.method, name) for line in context.grid.lines for name in context.grid.datasets if not line.runs.get(name)
    ]
    commands = [context.reference_command] if context.reference_command and _has_pme(columns) else []
    if missing and _runs(context):
        methods, datasets = ([pair[side] for pair in missing] for side in (0, 1))
        commands.append(fill_command(methods, datasets, _runs(context), output, report))
    return commands


def _has_pme(columns: Sequence[Column]) -> bool:
    return any(column.key == "pme" for column in columns)


def _notes(columns: Sequence[Column], rows: Sequence[Row], context: Context) -> list[str]:
    notes = []
    if context.missing_reference and _has_pme(columns):
        notes.append(f"PME is empty: {context.missing_reference}.")
    notes += _empty(rows, context)
    notes += _flags(rows, context)
    notes += _hardware(_runs(context))
    marked = [f"{context.grid.titles[name]} ({', '.join(marks)})" for name, marks in context.flagged.items() if marks]
    if marked:
        notes.append(f"Marked by an audit: {'; '.join(marked)}. A trivial classifier passes an AUC of 90 % there.")
    return notes


def _empty(rows: Sequence[Row], context: Context) -> list[str]:
    """Why cells of datasets are empty: one sentence a reason."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for name in context.grid.datasets:
            cell = row.cells.get(name, Cell())
            if cell.value is None and cell.reason:
                found.setdefault(cell.reason, []).append(f"{row.title} on {context.grid.titles[name]}")
    return [f"Empty, {reason}: {'; '.join(cells)}." for reason, cells in sorted(found.items())]


def _flags(rows: Sequence[Row], context: Context) -> list[str]:
    found: dict[str, list[str]] = {}
    for row in rows:
        for name in context.grid.datasets:
            for flag in row.cells.get(name, Cell()).flags:
                found.setdefault(flag, []).append(f"{row.title} on {context.grid.titles[name]}")
    return [f"{_capital(flag)}: {'; '.join(cells)}." for flag, cells in sorted(found.items())]


def _hardware(runs: Sequence[Stored]) -> list[str]:
    found = set()
    for one in runs:
        hardware = (one.document.get("environment") or {}).get("hardware") or {}
        gpus = ", ".join(
            str(gpu.get("name", gpu)) if isinstance(gpu, dict) else str(gpu) for gpu in hardware.get("gpus") or ()
        )
        found.add(gpus if one.config["device"] == "cuda" else str(hardware.get("processor", "")))
    if len(found) < 2:
        return []
    return [f"Times are of several machines and do not compare: {'; '.join(sorted(found))}."]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
