"""Peak memory of a run, phase by phase, measured on the device that it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from petlbench.memory.cuda import CudaMeter
from petlbench.memory.host import HostMeter, MpsMeter
from petlbench.memory.meter import PHASES, MemoryMeter
from petlbench.results.result import PhaseMemory

if TYPE_CHECKING:
    import torch

__all__ = ["PHASES", "CudaMeter", "HostMeter", "MemoryMeter", "MpsMeter", "PhaseMemory", "open_meter"]


def open_meter(device: torch.device) -> MemoryMeter:
    """Choose the meter for a device.

    Args:
        device: Where the run computes.

    Returns:
        A meter without any phase yet.

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
