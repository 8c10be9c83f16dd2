"""What every meter does: phases one at a time, the larger figures of each kept, and the host's resident set."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.results.result import PhaseMemory

if TYPE_CHECKING:
    import torch

    from petlbench.memory.live_tensors import LiveTensors

__all__ = ["MemoryMeter"]

_FIGURES = ("allocated", "reserved", "process", "resident")


class MemoryMeter:
    """Measures the phases of one run.

    Args:
        device: The device whose tensors count.
        proc: The process's folder in ``/proc``; absent on other systems than Linux.

    Attributes:
        source: Where the figures come from: ``cuda``, ``cpu`` or ``mps``.
        phases: The figures of the phases that were measured, by name.
        already_used: Bytes that others held on the device when the meter was opened; ``None`` where that is not known.
    """

    source: str

    def __init__(self, device: torch.device, *, proc: Path = Path("/proc/self")) -> None:
        self.phases: dict[str, PhaseMemory] = {}
        self.already_used: int | None = None
        self._device = device
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
        pairs = {figure: (getattr(old, figure), getattr(new, figure)) for figure in _FIGURES}
        larger = {
            figure: max((value for value in pair if value is not None), default=None) for figure, pair in pairs.items()
        }
        parts = new.parts if (new.allocated or 0) > (old.allocated or 0) else old.parts
        self.phases[name] = PhaseMemory(**larger, parts=parts)


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
