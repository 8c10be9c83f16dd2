"""How a broken rule is said: which, of what, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

__all__ = ["explained", "fail", "few"]


def fail(subject: object, message: str) -> NoReturn:
    """Fail the test with a sentence about its subject alone: a traceback would show this package's code."""
    pytest.fail(f"{subject} {message}", pytrace=False)


@contextmanager
def explained(message: str) -> Iterator[None]:
    """Say which rule an exception of the user's code breaks, and keep its traceback."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{message}\n{type(error).__name__}: {error}") from error


def few(names: Iterable[str]) -> str:
    """Name three and count the others."""
    names = sorted(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + more
