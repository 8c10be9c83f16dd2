"""Amounts of memory and of files, in words."""

from __future__ import annotations

__all__ = ["readable_size"]

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def readable_size(size: float) -> str:
    """Bytes in the largest unit of which there is one, such as ``1.50 GiB``."""
    steps = 0
    while abs(size) >= 1024 and steps < len(_UNITS) - 1:
        size /= 1024
        steps += 1
    return f"{size:.2f} {_UNITS[steps]}" if steps else f"{size:.0f} {_UNITS[0]}"
