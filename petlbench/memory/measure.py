"""Peak memory of a run, phase by phase, measured on the device that it runs on."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from petlbench.memory.meter import MemoryMeter
from petlbench.memory.nvml import Gpu, memory_of_others, open_driver
from petlbench.memory.peak_sampler import Sampler
from petlbench.results.result import PhaseMemory

if TYPE_CHECKING:
    import torch

    from petlbench.memory.live_tensors import LiveTensors

__all__ = ["CudaMeter", "HostMeter", "MemoryMeter", "MpsMeter", "PhaseMemory", "open_meter"]


def open_meter(device: torch.device) -> MemoryMeter:
    """A meter for a device, without any phase yet.

    Args:
        device: Where the run computes.

    Example:
        >>> import torch
        >>> meter = open_meter(torch.device("cpu"))
        >>> with meter.phase("build"):
        ...     model = torch.nn.Linear(2, 2)
        >>> meter.phases["build"].reserved is None
        True
    """
    if device.type == "cuda":
        return CudaMeter(device)
    return MpsMeter(device) if device.type == "mps" else HostMeter(device)


class HostMeter(MemoryMeter):
    """Measures the CPU: tensors by counting, and the resident set."""

    source = "cpu"


class MpsMeter(MemoryMeter):
    """Measures Apple's GPU: tensors by counting, what Metal's driver says, and the resident set.

    torch keeps no peak there. Its own count of the bytes in tensors is that of one moment only, so it is no figure of
    a phase; the driver's barely falls within one, because torch keeps the buffers that it frees.

    Args:
        device: The MPS device.
        mps: The module that asks the driver; ``torch.mps`` by default.
    """

    source = "mps"

    def __init__(self, device: torch.device, *, mps: Any = None) -> None:
        import torch

        super().__init__(device)
        self._mps = mps if mps is not None else torch.mps

    def _clear(self) -> None:
        gc.collect()
        self._mps.empty_cache()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        before = int(self._mps.driver_allocated_memory())
        try:
            yield
        finally:
            self._process = max(before, int(self._mps.driver_allocated_memory()))


class CudaMeter(MemoryMeter):
    """Measures a CUDA device: torch's caching allocator, the driver all through a phase, and the resident set.

    A phase that is entered for the first time begins with an empty cache, so that its reserved memory is its own.

    Args:
        device: The CUDA device.
        cuda: The module that keeps the allocator's figures; ``torch.cuda`` by default.
        nvml: The module that asks the driver; ``pynvml`` by default.
    """

    source = "cuda"

    def __init__(self, device: torch.device, *, cuda: Any = None, nvml: Any = None) -> None:
        import torch

        super().__init__(device)
        self._cuda = cuda if cuda is not None else torch.cuda
        self._nvml = nvml
        self._gpu = _gpu(device, self._cuda)
        # A process that holds memory already may be on the driver's list by an id that is not its own.
        touched = int(self._cuda.memory_reserved(device)) > 0
        self.already_used = memory_of_others(self._gpu, touched=touched, nvml=nvml)

    def _clear(self) -> None:
        gc.collect()
        self._cuda.empty_cache()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self._process = None
        self._cuda.reset_peak_memory_stats(self._device)
        with open_driver(self._gpu, nvml=self._nvml) as driver:
            if driver is None:
                yield
                return
            sampler = Sampler(driver.process_memory)
            try:
                with sampler:
                    yield
            finally:
                self._process = sampler.peak

    def _figures(self, counted: LiveTensors | None) -> PhaseMemory:
        allocated, reserved = (
            self._cuda.max_memory_allocated(self._device),
            self._cuda.max_memory_reserved(self._device),
        )
        parts = _parts(counted, int(allocated)) if counted is not None else None
        return PhaseMemory(int(allocated), int(reserved), self._process, self._resident.peak(), parts)


def _parts(counted: LiveTensors, allocated: int) -> dict[str, int] | None:
    """Split the allocator's peak by role; what no tensor shows (a kernel's workspace, say) is ``other``.

    An allocator that rounds to something smaller than blocks can say less than was counted: then nothing is split.
    """
    from petlbench.memory.live_tensors import OTHER

    unseen = allocated - counted.peak
    parts = counted.parts
    return parts | {OTHER: parts[OTHER] + unseen} if unseen >= 0 else None


def _gpu(device: torch.device, cuda: Any) -> Gpu:
    uuid = getattr(cuda.get_device_properties(device), "uuid", None)
    index = cast("int | None", device.index)
    return Gpu(
        index=int(cuda.current_device()) if index is None else index,
        uuid=str(uuid) if uuid is not None else None,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        in_bus_order=os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID",
    )
