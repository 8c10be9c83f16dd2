"""Amounts as people read them: sizes, shares, times, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MISSING = "–"

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def readable_size(size: float) -> str:
    """Bytes in the largest unit of which there is one, such as ``1.50 GiB``."""
    steps = 0
    while abs(size) >= 1024 and steps < len(_UNITS) - 1:
        size /= 1024
        steps += 1
    return f"{size:.2f} {_UNITS[steps]}" if steps else f"{size:.0f} {_UNITS[0]}"


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return MISSING if value is None else f"{value:.{digits}f}"


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction as a percentage, or a dash where there is none."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f}"


def mebibytes(size: float | None) -> str:
    """Bytes in MiB, or a dash where there is no figure."""
    return MISSING if size is None else f"{size / 2**20:,.1f}"


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
