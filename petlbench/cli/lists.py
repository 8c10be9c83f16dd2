"""Options that hold several entries with commas between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from petlbench.errors import InputError

__all__ = ["parse_list"]

A = TypeVar("A")


def parse_list(text: str, option: str, kind: Callable[[str], A]) -> list[A]:
    """Read the entries of an option.

    Args:
        text: Entries with commas between them.
        option: The option's name, for the error.
        kind: Makes an entry of its text.

    Returns:
        The entries in their order, each once.

    Raises:
        InputError: When there is none.
    """
    found = list(dict.fromkeys(kind(part.strip()) for part in text.split(",") if part.strip()))
    if not found:
        raise InputError(f"{option} '{text}' names nothing", hint="put commas between names", kind="usage")
    return found
