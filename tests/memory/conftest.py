"""A stand-in for NVIDIA's library: no machine that tests run on needs to have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest


class StandInError(Exception):
    """As pynvml's NVMLError."""


class StandInMismatchError(Exception):
    """As pynvml's NVMLLibraryMismatchError, which is no NVMLError."""


class StandInNvml:
    """Answers like pynvml.

    Args:
        processes: Bytes by process id, of every device or by UUID.
        gpus: UUIDs of the GPUs, each with those of its MIG instances.
        used: Bytes in use on every device, without and with what the driver keeps for itself.
        fails: Names of questions that raise, as with ``nvml`` and ``Device`` left out.
        mismatched: Those of them that a driver refuses that is older than the library.
    """

    NVMLError = StandInError
    NVMLLibraryMismatchError = StandInMismatchError
    nvmlMemory_v2 = 2  # noqa: N815  # pynvml's own name

    def __init__(
        self,
        processes: Mapping[Any, Any],
        *,
        gpus: Mapping[str, list[str]] | None = None,
        used: tuple[int, int] = (0, 0),
        fails: tuple[str, ...] = (),
        mismatched: tuple[str, ...] = (),
    ) -> None:
        self.processes, self.used, self.fails, self.mismatched = processes, used, fails, mismatched
        self.gpus = gpus if gpus is not None else {"GPU-1234": []}
        self.open = 0

    def nvmlInit(self) -> None:
        self._answer("Init")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        self._answer("GetHandleByIndex")
        return list(self.gpus)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid in self.gpus or any(uuid in instances for instances in self.gpus.values()):
            return uuid
        raise StandInError("not found")

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:
        if index < len(self.gpus[handle]):
            return self.gpus[handle][index]
        raise StandInError("not found")

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        self._answer("GetComputeRunningProcesses")
        return self._listed(handle)

    def nvmlDeviceGetComputeRunningProcesses_v2(self, handle: str) -> list[SimpleNamespace]:
        self._answer("GetComputeRunningProcesses_v2")
        return self._listed(handle)

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: int | None = None) -> SimpleNamespace:
        self._answer("GetMemoryInfo" if version is None else "GetMemoryInfo_v2")
        return SimpleNamespace(used=self.used[0 if version == self.nvmlMemory_v2 else 1])

    def _listed(self, handle: str) -> list[SimpleNamespace]:
        processes = self.processes.get(handle, {}) if handle in self.processes else self.processes
        entries = [(pid, used) for pid, used in processes.items() if isinstance(pid, int)]
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=each)
            for pid, used in entries
            for each in (used if isinstance(used, list) else [used])
        ]

    def _answer(self, question: str) -> None:
        if question in self.mismatched:
            raise StandInMismatchError(question)
        if question in self.fails:
            raise StandInError("insufficient permissions")


@pytest.fixture
def stand_in_nvml() -> Callable[..., StandInNvml]:
    """Make a stand-in for pynvml."""
    return StandInNvml
