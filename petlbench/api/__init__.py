"""petlbench from Python: every command of the command line as a function, each a thin layer over the engine.

Names of options are those of the command line, with ``_`` for ``-``. Whatever is wrong raises an exception of
`petlbench.core.errors` with the words that the command line prints. Functions of a kind share a module; which there
are, ``petlbench/__init__.pyi`` says.
"""

from petlbench.core.environment import set_thread_defaults

set_thread_defaults()
