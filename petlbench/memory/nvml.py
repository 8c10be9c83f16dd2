"""What the NVIDIA driver says of a GPU's memory: the figures that ``nvidia-smi`` shows.

Every question is answered with ``None`` where the driver cannot be asked, refuses, or does not know this process
(inside a container the driver may see other process ids than the program does).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

_GPU, _MIG = "GPU-", "MIG-"


@dataclass(frozen=True)
class Gpu:
    """Which GPU is meant, as far as a program of CUDA knows.

    Args:
        index: CUDA's number of the device, among those that it sees.
        uuid: The device's UUID as torch tells it, with or without the prefix ``GPU-`` or ``MIG-``; None where torch
            does not tell.
        visible: The value of ``CUDA_VISIBLE_DEVICES``; None where it is not set.
        in_bus_order: Whether CUDA numbers devices as the driver does (``CUDA_DEVICE_ORDER=PCI_BUS_ID``).
    """

    index: int
    uuid: str | None = None
    visible: str | None = None
    in_bus_order: bool = False

    @property
    def visible_as(self) -> str:
        """What ``CUDA_VISIBLE_DEVICES`` says of it: a number, a UUID or the beginning of one; empty for nothing."""
        if self.visible is None:
            return str(self.index)
        entries = [entry.strip() for entry in self.visible.split(",")]
        return entries[self.index] if self.index < len(entries) else ""

    def uuids(self) -> list[str]:
        """The UUIDs that it may have, the surest first.

        For a MIG instance torch may tell the UUID of the whole GPU, so the one in ``CUDA_VISIBLE_DEVICES`` goes first.
        """
        own = [self.visible_as] if self.visible_as.startswith((_GPU, _MIG)) else []
        if self.uuid is None:
            return own
        torchs = [self.uuid] if self.uuid.startswith((_GPU, _MIG)) else [_GPU + self.uuid, _MIG + self.uuid]
        return [*own, *torchs] if self.visible_as.startswith(_MIG) else [*torchs, *own]


class Driver:
    """The driver's answers about one GPU; made by `open_driver`."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle

    def process_memory(self) -> int | None:
        """Bytes that this process holds on the GPU now, CUDA context included."""
        used = self._used_by_process()
        return used.get(os.getpid()) if used else None

    def memory_of_others(self, *, touched: bool) -> int | None:
        """Bytes in use on the GPU besides this process.

        Args:
            touched: Whether this process holds memory there for certain. When the driver does not list it all the
                same, its share is among the others' and cannot be told from them.
        """
        used, total = self._used_by_process(), self._used()
        if total is None or used is None:
            return None
        own = used.get(os.getpid(), None if touched else 0)
        return None if own is None else max(0, total - own)

    def _used(self) -> int | None:
        """Bytes in use; the newer question leaves out what the driver keeps for itself, older drivers lack it."""
        version = getattr(self._library, "nvmlMemory_v2", None)
        info = _ask(self._library, "nvmlDeviceGetMemoryInfo", self._handle, version) if version else None
        info = info or _ask(self._library, "nvmlDeviceGetMemoryInfo", self._handle)
        return int(info.used) if info is not None else None

    def _used_by_process(self) -> dict[int, int | None] | None:
        question = "nvmlDeviceGetComputeRunningProcesses"  # older drivers know only an older form of it
        forms = [form for form in (question, f"{question}_v2") if hasattr(self._library, form)]
        answers = (_ask(self._library, form, self._handle) for form in forms)
        listed = next((answer for answer in answers if answer is not None), None)
        if listed is None:
            return None
        used: dict[int, int | None] = {}
        for entry in listed:  # a process has one entry for each MIG instance that it uses
            before, now = used.get(entry.pid, 0), entry.usedGpuMemory
            # A number with all bits set, of 32 or 64, stands for none.
            none = (None, -1, 2**32 - 1, 2**64 - 1)
            used[entry.pid] = None if before is None or now in none else before + int(now)
        return used


@contextmanager
def open_driver(gpu: Gpu, *, nvml: Any = None) -> Iterator[Driver | None]:
    """The driver of a GPU, its library open inside; ``None`` where there is none or it does not know the GPU.

    Args:
        gpu: Which one.
        nvml: The module to ask; ``pynvml`` by default.
    """
    library = nvml
    if library is None:
        with suppress(ImportError):
            import pynvml  # type: ignore[import-untyped, unused-ignore]

            library = pynvml
    try:
        if library is not None:
            library.nvmlInit()
    except _errors(library):
        library = None
    if library is None:
        yield None
        return
    try:
        handle = _handle(library, gpu)
        yield Driver(library, handle) if handle is not None else None
    finally:
        _ask(library, "nvmlShutdown")


def _ask(library: Any, question: str, *arguments: Any) -> Any:
    try:
        return getattr(library, question)(*arguments)
    except _errors(library):
        return None


def _errors(library: Any) -> tuple[type[Exception], ...]:
    # A driver that is older than the library raises an error that is no NVMLError.
    return library.NVMLError, getattr(library, "NVMLLibraryMismatchError", library.NVMLError)


def _handle(library: Any, gpu: Gpu) -> Any:
    for uuid in gpu.uuids():
        handle = _ask(library, "nvmlDeviceGetHandleByUUID", uuid) or _by_prefix(library, uuid)
        if handle is not None:
            return handle
    return _by_number(library, gpu) if gpu.uuid is None else None


def _by_prefix(library: Any, beginning: str) -> Any:
    """The one device whose UUID begins so; CUDA takes abbreviated ones, the driver does not."""
    uuids = [(device, str(_ask(library, "nvmlDeviceGetUUID", device))) for device in _devices(library)]
    devices = [device for device, uuid in uuids if uuid.startswith(beginning)]
    return devices[0] if len(devices) == 1 else None


def _devices(library: Any) -> Iterator[Any]:
    """Yield the handles of all GPUs and of all MIG instances."""
    for number in range(_ask(library, "nvmlDeviceGetCount") or 0):
        if (device := _ask(library, "nvmlDeviceGetHandleByIndex", number)) is None:
            continue
        yield device
        for slot in range(_ask(library, "nvmlDeviceGetMaxMigDeviceCount", device) or 0):
            if (instance := _ask(library, "nvmlDeviceGetMigDeviceHandleByIndex", device, slot)) is not None:
                yield instance


def _by_number(library: Any, gpu: Gpu) -> Any:
    """The device by its number, which CUDA and the driver share only in bus order or where there is one device."""
    alone = _ask(library, "nvmlDeviceGetCount") == 1
    if not gpu.visible_as.isdecimal() or not (alone or gpu.in_bus_order):
        return None
    return _ask(library, "nvmlDeviceGetHandleByIndex", int(gpu.visible_as))
