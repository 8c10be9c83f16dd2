"""Amounts of memory and of files on the command line."""

from __future__ import annotations

import re
from decimal import Decimal

import click

__all__ = ["SIZE", "SIZE_OR_NOTHING"]

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt]?)(i?)b)?", re.IGNORECASE)


class _Size(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic in new versions of click
    """Bytes, written with a unit: ``8GiB`` (1024), ``8GB`` (1000), or none.

    Args:
        least: The smallest size that is taken, in bytes.
    """

    name = "size"

    def __init__(self, least: int) -> None:
        self.least = least

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a size in bytes."""
        match = _FORM.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"'{value}' is no size: write 8GiB, 15.77GiB, 8192MiB, 8GB or a number of bytes", param, ctx)
        number, prefix, binary = match.groups(default="")
        size = int(Decimal(number) * (1024 if binary else 1000) ** _POWERS[prefix.lower()])
        if size < self.least:
            self.fail(f"'{value}' is less than one byte", param, ctx)
        return size


SIZE = _Size(1)
SIZE_OR_NOTHING = _Size(0)
