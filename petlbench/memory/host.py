"""Meters of devices that keep no peak of their own: tensors are counted one by one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from petlbench.memory.meter import MemoryMeter
from petlbench.results.result import PhaseMemory

if TYPE_CHECKING:
    import torch

    from petlbench.memory.live_tensors import LiveTensors

__all__ = ["HostMeter", "MpsMeter"]


class HostMeter(MemoryMeter):
    """Measures the CPU: tensors by counting, and the resident set."""

    source = "cpu"

    def _figures(self, counted: LiveTensors | None) -> PhaseMemory:
        resident = self._resident.peak()
        if counted is None:
            return PhaseMemory(resident=resident)
        return PhaseMemory(counted.peak, resident=resident, parts=counted.parts)


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
        super().__init__(device)
        self._mps = mps if mps is not None else _torch_mps()
        self._driver: int | None = None

    def _clear(self) -> None:
        gc.collect()
        self._mps.empty_cache()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        before = int(self._mps.driver_allocated_memory())
        try:
            yield
        finally:
            self._driver = max(before, int(self._mps.driver_allocated_memory()))

    def _figures(self, counted: LiveTensors | None) -> PhaseMemory:
        return PhaseMemory(
            allocated=counted.peak if counted is not None else None,
            process=self._driver,
            resident=self._resident.peak(),
            parts=counted.parts if counted is not None else None,
        )


def _torch_mps() -> Any:
    import torch

    return torch.mps
