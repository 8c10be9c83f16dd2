"""petlbench: a benchmark harness for parameter-efficient transfer learning on medical images.

What can be imported from here stands in ``__init__.pyi``, and is imported when it is first used: ``import petlbench``
alone imports no torch.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
