"""Peak memory of a run, phase by phase, measured on the device that it runs on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch

    from petlbench.memory.live import LiveTensors

__all__ = ["PHASES", "CudaMeter", "HostMeter", "MemoryMeter", "PhaseMemory", "open_meter"]

PHASES = ("build", "preload", "train_step", "evaluate")
"""The phases of a run, in their order."""


@dataclass(frozen=True)
class PhaseMemory:
    """Peak memory of one phase in bytes; ``None`` is "not available here", never zero.

    Attributes:
        allocated: The most bytes in tensors at one time. On CUDA the allocator's own figure for the whole phase;
            elsewhere counted tensor by tensor, in those parts of the phase that named what lives already.
        reserved: The most bytes that the CUDA caching allocator held from the driver.
        process: What the driver (NVML) says that this process holds on the device at the phase's end, context included.
        resident: Peak resident set of the process in host memory; `MemoryMeter.resident_scope` tells whose peak it is.
        parts: The peak of ``allocated`` by role, where it was counted tensor by tensor; sums to ``allocated``.
    """

    allocated: int | None = None
    reserved: int | None = None
    process: int | None = None
    resident: int | None = None
    parts: dict[str, int] | None = None


class MemoryMeter(Protocol):
    """Measures the phases of one run."""

    @property
    def source(self) -> str:
        """Where the figures come from: ``cuda``, ``cpu`` or ``mps``."""

    @property
    def phases(self) -> dict[str, PhaseMemory]:
        """The figures of the phases that were measured, by name."""

    @property
    def resident_scope(self) -> Literal["phase", "process"]:
        """Whether ``resident`` is the phase's own peak, or that of the process since it started."""

    @property
    def already_used(self) -> int | None:
        """Bytes that others held on the device when the meter was opened; ``None`` where that is not known."""

    def phase(self, name: str, live: Sequence[object] = ()) -> AbstractContextManager[None]:
        """Measure a phase, also when its body raises.

        Args:
            name: The phase, one of `PHASES` or another. A phase that is entered again keeps the larger figures.
            live: The modules, optimisers and tensors (also in mappings, sequences, dataclasses) that live at the start,
                for a phase whose tensors are to be counted where the device keeps no count. Counting slows the phase:
                wrap the first two training steps, of which the second holds the optimiser's state. CUDA ignores it.

        Returns:
            A context manager around the phase's work.

        Raises:
            RuntimeError: Another phase is still open.
        """


class HostMeter:
    """Measures where the device keeps no peak of its own (CPU, MPS): tensors by counting, and the resident set.

    Args:
        device: The device whose tensors count.
        proc: The process's folder in ``/proc``; absent on other systems than Linux.
    """

    def __init__(self, device: torch.device, *, proc: Path = Path("/proc/self")) -> None:
        self.source = device.type
        self.phases: dict[str, PhaseMemory] = {}
        self.already_used: int | None = None
        self._device = device
        self._resident = _ResidentSet(proc)
        self._open: list[str] = []

    @property
    def resident_scope(self) -> Literal["phase", "process"]:
        """Whether ``resident`` is the phase's own peak; see `MemoryMeter.resident_scope`."""
        return self._resident.scope

    @contextmanager
    def phase(self, name: str, live: Sequence[object] = ()) -> Iterator[None]:
        """Measure a phase; see `MemoryMeter.phase`."""
        with _alone(self._open, name):
            self._resident.restart()
            counted: LiveTensors | None = None
            try:
                with ExitStack() as stack:
                    if live:
                        counted = stack.enter_context(self._count(live))
                    yield
            finally:
                figures = PhaseMemory(resident=self._resident.peak())
                if counted is not None:
                    figures = PhaseMemory(counted.peak, resident=figures.resident, parts=counted.parts)
                _record(self.phases, name, figures)

    def _count(self, live: Sequence[object]) -> LiveTensors:
        from petlbench.memory.live import LiveTensors

        tensors = LiveTensors(self._device)
        tensors.add(*live)
        return tensors


class CudaMeter:
    """Measures a CUDA device: PyTorch's caching allocator, the driver, and the resident set.

    Args:
        device: The CUDA device.
        cuda: The module that keeps the allocator's figures; ``torch.cuda`` by default.
        nvml: The module that asks the driver; ``pynvml`` by default.
    """

    source = "cuda"

    def __init__(self, device: torch.device, *, cuda: Any = None, nvml: Any = None) -> None:
        from petlbench.memory.nvml import memory_of_others

        self.phases: dict[str, PhaseMemory] = {}
        self._device = device
        self._cuda = cuda if cuda is not None else _torch_cuda()
        self._nvml = nvml
        self._uuid = str(self._cuda.get_device_properties(device).uuid)
        self._resident = _ResidentSet(Path("/proc/self"))
        self._open: list[str] = []
        self.already_used = memory_of_others(self._uuid, nvml=nvml)

    @property
    def resident_scope(self) -> Literal["phase", "process"]:
        """Whether ``resident`` is the phase's own peak; see `MemoryMeter.resident_scope`."""
        return self._resident.scope

    @contextmanager
    def phase(self, name: str, live: Sequence[object] = ()) -> Iterator[None]:
        """Measure a phase; see `MemoryMeter.phase`."""
        with _alone(self._open, name):
            self._resident.restart()
            self._cuda.reset_peak_memory_stats(self._device)
            try:
                yield
            finally:
                _record(self.phases, name, self._figures())

    def _figures(self) -> PhaseMemory:
        from petlbench.memory.nvml import process_memory

        return PhaseMemory(
            allocated=int(self._cuda.max_memory_allocated(self._device)),
            reserved=int(self._cuda.max_memory_reserved(self._device)),
            process=process_memory(self._uuid, nvml=self._nvml),
            resident=self._resident.peak(),
        )


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
    return CudaMeter(device) if device.type == "cuda" else HostMeter(device)


class _ResidentSet:
    """Peak resident set of this process: since `restart` where the kernel allows that, else since the process began."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self.scope: Literal["phase", "process"] = "process"

    def restart(self) -> None:
        try:
            (self._proc / "clear_refs").write_text("5")  # proc(5): sets the peak to what is resident now
        except OSError:
            self.scope = "process"
        else:
            self.scope = "phase"

    def peak(self) -> int | None:
        try:
            for line in (self._proc / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        self.scope = "process"
        try:
            import resource
        except ImportError:  # Windows has no such module
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def _alone(opened: list[str], name: str) -> Iterator[None]:
    if opened:
        raise RuntimeError(f"phase '{name}' inside phase '{opened[-1]}': phases share one peak and do not nest")
    opened.append(name)
    try:
        yield
    finally:
        opened.pop()


def _record(phases: dict[str, PhaseMemory], name: str, new: PhaseMemory) -> None:
    old = phases.get(name, PhaseMemory())
    newer_counts = (new.allocated or 0) > (old.allocated or 0)
    phases[name] = PhaseMemory(
        allocated=_larger(old.allocated, new.allocated),
        reserved=_larger(old.reserved, new.reserved),
        process=_larger(old.process, new.process),
        resident=_larger(old.resident, new.resident),
        parts=new.parts if newer_counts else old.parts,
    )


def _larger(old: int | None, new: int | None) -> int | None:
    known = [value for value in (old, new) if value is not None]
    return max(known) if known else None


def _torch_cuda() -> Any:
    import torch

    return torch.cuda
