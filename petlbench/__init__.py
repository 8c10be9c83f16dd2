"""petlbench: a benchmark harness for parameter-efficient transfer learning on medical images.

What can be imported from here stands in ``__init__.pyi``, and is imported when it is first used: ``import petlbench``
alone imports no torch.
"""

import sys
from types import ModuleType

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


class _Api(ModuleType):
    """This package, on which a room never takes the name of a function: ``petlbench.run`` is the function ``run``.

    Python binds every imported submodule to its package, and the rooms ``run``, ``sweep`` and ``report`` are called as
    functions of the API are. They stay what ``from petlbench.run.execute import …`` imports from.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Api
