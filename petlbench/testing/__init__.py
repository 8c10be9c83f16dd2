"""What a user's own method, reader or metric has to keep, as tests: ``pytest --petlbench-method my_method.py``.

`petlbench.testing.plugin` is the plug-in of pytest. In a test module of one's own a contract is a base class::

    from petlbench.testing import MethodContract

    class TestMine(MethodContract):
        method = Mine
"""

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
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{name.removesuffix('Contract').lower()}"), name)
