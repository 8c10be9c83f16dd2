"""Out of memory: the request and what there was, from the error's own words."""

from __future__ import annotations

import re

from petlbench.core.environment import free_memory
from petlbench.core.units import readable_size

_SIZE = r"([\d.]+ (?:[KMGTPE]i?B|bytes))"
# What the allocators of CUDA, MPS, the CPU and NumPy say; torch's words for CUDA changed with 2.1.
_WORDS = {
    "asked": (rf"ried to allocate {_SIZE}", r"ried to allocate (more than \w+)", rf"Unable to allocate {_SIZE}"),
    "free": (rf"of which {_SIZE} is free", rf"already allocated; {_SIZE} free"),
    "total": (rf"total capacity of {_SIZE}", rf"{_SIZE} total capacity", rf"max allowed: {_SIZE}"),
}
# Where torch raises a plain RuntimeError, its text is all there is to tell it by.
_ON_HOST = "DefaultCPUAllocator: can't allocate memory"
_ON_DEVICE = ("MPS backend out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory has run out, on the host or on a device."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in (_ON_HOST, *_ON_DEVICE))


def describe_shortage(error: BaseException) -> dict[str, str]:
    """The request that failed, and what there was.

    Args:
        error: One that `is_shortage` is true of.

    Returns:
        Sizes with their units, such as ``2.00 GiB``, each where it is known: ``asked``, ``free`` (at the time on a
        device, now on the host) and ``total`` (what the device has, or what may be taken of it).
    """
    text = str(error)
    sizes = {name: _size(patterns, text) for name, patterns in _WORDS.items()}
    if isinstance(error, MemoryError) or _ON_HOST in text:
        sizes["free"] = readable_size(free_memory())
    return {name: size for name, size in sizes.items() if size is not None}


def _size(patterns: tuple[str, ...], text: str) -> str | None:
    match = next(filter(None, (re.search(pattern, text) for pattern in patterns)), None)
    if match is None:
        return None
    size = match.group(1)
    return readable_size(int(size.removesuffix(" bytes"))) if re.fullmatch(r"\d+ bytes", size) else size
