"""Peak memory of a run, phase by phase, measured on the device that it runs on."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from petlbench.memory.nvml import Gpu, open_driver
from petlbench.results.result import PhaseMemory

if TYPE_CHECKING:
    import torch

    from petlbench.memory.live_tensors import LiveTensors

_FIGURES = ("allocated", "reserved", "process", "resident")
# A thread that hangs in the driver must not keep the run from going on.
_PATIENCE = 2.0


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
    return MpsMeter(device) if device.type == "mps" else MemoryMeter(device)


class MemoryMeter:
    """Measures the phases of one run: on the CPU, tensors by counting, and the resident set.

    Args:
        device: The device whose tensors count.
        proc: The process's folder in ``/proc``; absent on other systems than Linux.

    Attributes:
        source: Where the figures come from: ``cuda``, ``cpu`` or ``mps``.
        phases: The figures of the phases that were measured, by name.
        already_used: Bytes that others held on the device when the meter was opened; ``None`` where that is not known.
    """

    source = "cpu"

    def __init__(self, device: torch.device, *, proc: Path = Path("/proc/self")) -> None:
        self.phases: dict[str, PhaseMemory] = {}
        self.already_used: int | None = None
        self._device = device
        self._library: Any = None  # of torch's, where it caches memory of the device
        self._process: int | None = None
        self._resident = _ResidentSet(proc)
        self._open: str | None = None
        self._entered: set[str] = set()

    @contextmanager
    def phase(self, name: str, live: Sequence[object] = ()) -> Iterator[None]:
        """Measure a phase, also when its body raises.

        Args:
            name: The phase, such as ``train_step``. A phase that is entered again keeps the larger figures.
            live: The modules, optimisers and tensors (also in mappings, sequences, dataclasses) that live at the start,
                for a phase whose tensors are to be counted. Counting slows the phase: wrap the first two training
                steps, of which the second holds the optimiser's state.

        Yields:
            Nothing; the phase's work is done inside.

        Raises:
            RuntimeError: Another phase is still open.
        """
        if self._open is not None:
            raise RuntimeError(f"phase '{name}' inside phase '{self._open}': phases share one peak and do not nest")
        if name not in self._entered:
            self._entered.add(name)
            self._clear()
        self._resident.restart()
        self._open = name
        counted: LiveTensors | None = None
        try:
            with ExitStack() as stack:
                stack.enter_context(self._watched())
                if live:
                    from petlbench.memory.live_tensors import LiveTensors

                    counted = LiveTensors(self._device)
                    counted.add(*live)
                    stack.enter_context(counted)
                yield
        finally:
            self._open = None
            self._record(name, self._figures(counted))

    def _clear(self) -> None:
        """Free what is cached before a phase is entered for the first time, so that its peak is its own."""
        if self._library is not None:
            gc.collect()
            self._library.empty_cache()

    def _watched(self) -> AbstractContextManager[object]:
        """The context in which a phase's work is done."""
        return nullcontext()

    def _figures(self, counted: LiveTensors | None) -> PhaseMemory:
        """Read the figures of the phase that just ended; ``counted`` holds its live tensors where they were named."""
        if counted is None:
            return PhaseMemory(process=self._process, resident=self._resident.peak())
        return PhaseMemory(counted.peak, process=self._process, resident=self._resident.peak(), parts=counted.parts)

    def _record(self, name: str, new: PhaseMemory) -> None:
        old = self.phases.get(name, PhaseMemory())
        values = {figure: (getattr(old, figure), getattr(new, figure)) for figure in _FIGURES}
        larger = {figure: max(filter(lambda v: v is not None, pair), default=None) for figure, pair in values.items()}
        parts = new.parts if (new.allocated or 0) > (old.allocated or 0) else old.parts
        self.phases[name] = PhaseMemory(**larger, parts=parts)


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
        self._library = mps if mps is not None else torch.mps

    @contextmanager
    def _watched(self) -> Iterator[None]:
        before = int(self._library.driver_allocated_memory())
        try:
            yield
        finally:
            self._process = max(before, int(self._library.driver_allocated_memory()))


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
        self._library = cuda if cuda is not None else torch.cuda
        self._nvml = nvml
        uuid = getattr(self._library.get_device_properties(device), "uuid", None)
        index = cast("int | None", device.index)
        self._gpu = Gpu(
            index=int(self._library.current_device()) if index is None else index,
            uuid=str(uuid) if uuid is not None else None,
            visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
            in_bus_order=os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID",
        )
        # A process that holds memory already may be on the driver's list by an id that is not its own.
        touched = int(self._library.memory_reserved(device)) > 0
        with open_driver(self._gpu, nvml=nvml) as driver:
            self.already_used = driver.memory_of_others(touched=touched) if driver is not None else None

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self._process = None
        self._library.reset_peak_memory_stats(self._device)
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
        allocated = int(self._library.max_memory_allocated(self._device))
        reserved = int(self._library.max_memory_reserved(self._device))
        parts = None
        # An allocator that rounds to less than blocks can say less than was counted: nothing is split then.
        if counted is not None and (unseen := allocated - counted.peak) >= 0:
            from petlbench.memory.live_tensors import OTHER

            # What no tensor shows (a kernel's workspace, say) is other.
            parts = counted.parts | {OTHER: counted.parts[OTHER] + unseen}
        return PhaseMemory(allocated, reserved, self._process, self._resident.peak(), parts)


class Sampler:
    """Reads a figure over and over in a thread of its own while it is entered.

    The first reading is made before the work begins and the last one after it has ended, however short it is.

    Args:
        read: Gives the figure, or ``None`` where it is not to be had just now. Called from the thread too.
        every: Seconds between two readings.

    Attributes:
        peak: The largest reading; ``None`` where there was none.
    """

    def __init__(self, read: Callable[[], int | None], *, every: float = 0.01) -> None:
        self.peak: int | None = None
        self._read = read
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="petlbench-memory", daemon=True)

    def __enter__(self) -> Self:
        """Start to read."""
        self._note()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Read for the last time."""
        self._stopped.set()
        self._thread.join(_PATIENCE)
        if not self._thread.is_alive():
            self._note()

    def _go_on(self) -> None:
        while not self._stopped.wait(self._every):
            self._note()

    def _note(self) -> None:
        value = self._read()
        if value is not None:
            self.peak = value if self.peak is None else max(self.peak, value)


class _ResidentSet:
    """Peak resident set of this process: since `restart` where the kernel allows that, else since the process began."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc

    def restart(self) -> None:
        with suppress(OSError):
            (self._proc / "clear_refs").write_text("5")  # proc(5): sets the peak to what is resident now

    def peak(self) -> int | None:
        with suppress(OSError):
            for line in (self._proc / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        try:
            import resource
        except ImportError:  # Windows has no such module
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
