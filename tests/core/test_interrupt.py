"""A signal that cannot get lost."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOST = """
import os, signal, weakref
from petlbench.core.interrupt import check_interrupt, install_handlers

class Thing: pass

install_handlers()
thing = Thing()
reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.{name}))
del thing  # the exception is raised in the callback, where Python drops it
check_interrupt()
print("went on")
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_inside_a_callback_still_stops(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOST.format(name=name)], capture_output=True, text=True, check=False)
    assert "went on" not in done.stdout
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr
