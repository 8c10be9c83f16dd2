"""What the words of an allocator that refuses say."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from petlbench.memory.out_of_memory import describe_shortage, is_shortage

NEW = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which 1.20 GiB is free."
    " Including non-PyTorch memory, this process has 14.57 GiB memory in use. Of the allocated memory 13.00 GiB is "
    "allocated by PyTorch, and 900.00 MiB is reserved by PyTorch but unallocated."
)
OLD = (
    "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 15.77 GiB total capacity; 14.50 GiB already allocated; "
    "11.88 MiB free; 14.90 GiB reserved in total by PyTorch)"
)
MPS = "MPS backend out of memory (MPS allocated: 17.00 GiB, other allocations: 1.00 GiB, max allowed: 18.13 GiB). "


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError(NEW), {"asked": "2.00 GiB", "free": "1.20 GiB", "total": "15.77 GiB"}),
        (torch.OutOfMemoryError(OLD), {"asked": "20.00 MiB", "free": "11.88 MiB", "total": "15.77 GiB"}),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 512 bytes. "), {"asked": "512 bytes"}),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than 1EB memory."),
            {"asked": "more than 1EB"},
        ),
        (
            RuntimeError(MPS + "Tried to allocate 256.00 MiB on private pool."),
            {"asked": "256.00 MiB", "total": "18.13 GiB"},
        ),
        (RuntimeError("CUDA error: out of memory"), {}),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), {}),
    ],
)
def test_a_device_tells_what_was_asked_and_what_was_there(error: Exception, told: dict[str, str]) -> None:
    assert is_shortage(error)
    assert describe_shortage(error) == told


@pytest.mark.parametrize("allocate", [lambda: torch.empty(10**16), lambda: np.empty(10**16, np.float32)])
def test_the_host_s_own_errors_are_understood(allocate: object) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()  # type: ignore[operator]
    told = describe_shortage(caught.value)
    assert is_shortage(caught.value)
    assert told["asked"] in {"35.53 PiB", "35.5 PiB"}
    assert re.fullmatch(r"\d+\.\d\d [MGT]iB", told["free"])


def test_python_s_own_error_says_nothing_but_is_one() -> None:
    assert is_shortage(MemoryError())
    assert list(describe_shortage(MemoryError())) == ["free"]


@pytest.mark.parametrize("error", [ValueError("CUDA error: out of memory"), RuntimeError("out of luck"), OSError(28)])
def test_other_errors_are_none(error: Exception) -> None:
    assert not is_shortage(error)
