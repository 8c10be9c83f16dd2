"""What a user's own method, reader or metric has to keep, as tests: ``pytest --petlbench-method my_method.py``.

In a test module of one's own a contract is a base class: ``class TestMine(MethodContract): method = Mine``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
