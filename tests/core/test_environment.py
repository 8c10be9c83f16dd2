"""What a process is told before it computes."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys

import pytest

from petlbench.core.environment import heavy_imports

_FAULTS = """
import resource, sys
from petlbench.core.environment import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else False
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for attempt in range(3):
    before = faults()
    parts = [bytearray(2**24) for _ in range(8)]  # of 128 MiB, as a step takes and frees it
    del parts
print(kept, faults() - before)
"""


def last_step(word: str, **environment: str) -> tuple[bool, int]:
    """Whether memory is kept, and the pages that the last of three equal steps took from the system."""
    asked = [sys.executable, "-c", _FAULTS, word]
    answer = subprocess.run(asked, env={**environment}, capture_output=True, text=True, check=True).stdout.split()
    return answer[0] == "True", int(answer[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_a_step_takes_the_memory_that_the_last_one_freed() -> None:
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    kept, pages = last_step("keep", **paths)
    assert kept
    assert pages < 1000 < last_step("leave", **paths)[1]
    assert not last_step("keep", **paths, MALLOC_TRIM_THRESHOLD_="65536")[0]


@pytest.mark.parametrize("was_enabled", [True, False])
def test_no_garbage_is_looked_for_during_imports_and_then_as_before(was_enabled: bool) -> None:
    (gc.enable if was_enabled else gc.disable)()
    try:
        with heavy_imports():
            assert not gc.isenabled()
        assert gc.isenabled() == was_enabled
    finally:
        gc.enable()
