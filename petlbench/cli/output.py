"""Tables for people and one JSON document for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

__all__ = [
    "MISSING",
    "mebibytes",
    "number",
    "params_text",
    "percent",
    "print_facts",
    "print_json",
    "print_table",
    "seconds",
    "shortened",
    "value_text",
]

MISSING = "–"

# Columns of a table that goes to no terminal.
_UNBOUNDED = 160


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(document, indent=1, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, caption: str = "") -> None:
    """Print a table.

    Args:
        title: Stands above it.
        columns: Headings; one that ends in ``>`` is aligned to the right.
        rows: Cells; one that is a text of rich keeps its style.
        caption: Stands below it.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold")
    for column in columns:
        right = column.endswith(">")
        table.add_column(column.rstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    console = Console(highlight=False, width=_width())
    console.print(table)
    if caption:
        console.print(Text(caption, style="dim"))


def _width() -> int | None:
    """The terminal's own width; in a file or a pipe, where nothing has one, room for a whole row."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else _UNBOUNDED


def print_facts(title: str, facts: Mapping[str, str]) -> None:
    """Print names and values, one a line."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE, show_header=False)
    for name, value in facts.items():
        table.add_row(Text(name), Text(value))
    Console(highlight=False, width=_width()).print(table)


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return MISSING if value is None else f"{value:.{digits}f}"


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction as a percentage, or a dash where there is none."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f}"


def mebibytes(size: int | None) -> str:
    """Bytes in MiB, or a dash where there is no figure."""
    return MISSING if size is None else f"{size / 2**20:,.1f}"


def shortened(text: str) -> str:
    """An address as a table shows it: ``arXiv 2403.07576`` for arXiv's, without the scheme for others."""
    return text.replace("https://arxiv.org/abs/", "arXiv ").removeprefix("https://")


def seconds(value: float | None) -> str:
    """A duration, in seconds or in minutes and seconds."""
    if value is None:
        return MISSING
    return f"{value:.1f} s" if value < 120 else f"{int(value // 60)} min {int(value % 60):02d} s"


def params_text(params: Mapping[str, Any]) -> str:
    """Settings by dotted name, as a line shows them."""
    return ", ".join(f"{name.partition('.')[2]} {value_text(value)}" for name, value in params.items())


def value_text(value: Any) -> str:
    """A setting's value with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
