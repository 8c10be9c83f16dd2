"""What the NVIDIA driver says of a GPU's memory: the figures that ``nvidia-smi`` shows.

Every question is answered with ``None`` where the driver cannot be asked, refuses, or does not know this process
(inside a container the driver may see other process ids than the program does).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["memory_of_others", "process_memory"]


def process_memory(uuid: str, *, pid: int | None = None, nvml: Any = None) -> int | None:
    """Read the memory that a process holds on a GPU, CUDA context included.

    This is the reading at the time of the call, not a peak; it comes close to one because PyTorch's allocator keeps
    what it has reserved.

    Args:
        uuid: The device's UUID, with or without the prefix ``GPU-`` or ``MIG-``.
        pid: The process; this one by default.
        nvml: The module to ask; ``pynvml`` by default.

    Returns:
        Bytes, or ``None`` when not available.
    """
    with _session(nvml) as library:
        used = _used_by_process(library, uuid)
    return used.get(os.getpid() if pid is None else pid) if used else None


def memory_of_others(uuid: str, *, pid: int | None = None, nvml: Any = None) -> int | None:
    """Read what is in use on a GPU besides a process: other programs, and what the driver keeps.

    A process that the driver knows by another id counts as another, so ask before this one has touched the device.

    Args:
        uuid: The device's UUID, with or without the prefix ``GPU-`` or ``MIG-``.
        pid: The process to leave out; this one by default.
        nvml: The module to ask; ``pynvml`` by default.

    Returns:
        Bytes, or ``None`` when not available.
    """
    with _session(nvml) as library:
        handle = _handle(library, uuid)
        total = _ask(library, lambda: int(library.nvmlDeviceGetMemoryInfo(handle).used)) if handle is not None else None
        used = _used_by_process(library, uuid)
    if total is None or used is None:
        return None
    own = used.get(os.getpid() if pid is None else pid, 0)
    return None if own is None else max(0, total - own)


@contextmanager
def _session(nvml: Any) -> Iterator[Any]:
    """Open the library for one question; yields ``None`` when there is no driver to ask."""
    library = nvml if nvml is not None else _pynvml()
    if library is None or _ask(library, lambda: (library.nvmlInit(), True)) is None:
        yield None
        return
    try:
        yield library
    finally:
        _ask(library, library.nvmlShutdown)


def _pynvml() -> Any:
    try:
        import pynvml  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return None
    return pynvml


def _ask(library: Any, question: Callable[[], Any]) -> Any:
    try:
        return question()
    except library.NVMLError:
        return None


def _handle(library: Any, uuid: str) -> Any:
    if library is None:
        return None
    names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
    for name in names:
        handle = _ask(library, functools.partial(library.nvmlDeviceGetHandleByUUID, name))
        if handle is not None:
            return handle
    return None


def _used_by_process(library: Any, uuid: str) -> dict[int, int | None] | None:
    handle = _handle(library, uuid)
    if handle is None:
        return None
    processes = _ask(library, lambda: library.nvmlDeviceGetComputeRunningProcesses(handle))
    return None if processes is None else {entry.pid: entry.usedGpuMemory for entry in processes}
