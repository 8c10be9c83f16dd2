"""What a user's own method, reader or metric has to keep, as tests: ``pytest --petlbench-method my_method.py``.

In a test module of one's own a contract is a base class: ``class TestMine(MethodContract): method = Mine``.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from petlbench.testing.method import MethodContract as MethodContract
    from petlbench.testing.metric import MetricContract as MetricContract
    from petlbench.testing.reader import ReaderContract as ReaderContract

__all__ = ["MethodContract", "MetricContract", "ReaderContract"]


def __getattr__(name: str) -> Any:
    """Import a contract when it is first used: pytest imports this package in every session, whatever it tests."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{name.removesuffix('Contract').lower()}"), name)


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
