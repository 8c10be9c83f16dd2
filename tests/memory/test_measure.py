"""Meters: the host's for real, CUDA's and NVML's against stand-ins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from petlbench.memory.measure import CudaMeter, HostMeter, PhaseMemory, open_meter
from petlbench.memory.nvml import memory_of_others, process_memory

MIB = 2**20
CPU = torch.device("cpu")


class StandInError(Exception):
    """What the stand-in for pynvml raises."""


class StandInNvml:
    """Answers like pynvml for one device; the names in `fails` raise."""

    NVMLError = StandInError

    def __init__(self, processes: dict[int, int | None], *, used: int = 0, fails: tuple[str, ...] = ()) -> None:
        self.processes, self.used, self.fails = processes, used, fails
        self.open = 0

    def nvmlInit(self) -> None:
        self._maybe_fail("init")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-1234":
            raise StandInError("not found")
        return "handle"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        self._maybe_fail("processes")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes.items()]

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        self._maybe_fail("info")
        return SimpleNamespace(used=self.used)

    def _maybe_fail(self, name: str) -> None:
        if name in self.fails:
            raise StandInError("insufficient permissions")


class StandInCuda:
    """Keeps the allocator's peaks as torch.cuda does."""

    def __init__(self) -> None:
        self.allocated = self.reserved = 0
        self.resets = 0

    def get_device_properties(self, device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(uuid="1234")

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        self.resets += 1
        self.allocated = self.reserved = 0

    def max_memory_allocated(self, device: torch.device) -> int:
        return self.allocated

    def max_memory_reserved(self, device: torch.device) -> int:
        return self.reserved


@pytest.mark.parametrize("uuid", ["1234", "GPU-1234"])
def test_the_driver_tells_what_a_process_holds(uuid: str) -> None:
    nvml = StandInNvml({7: 100, 8: 30}, used=200)
    assert process_memory(uuid, pid=7, nvml=nvml) == 100
    assert memory_of_others(uuid, pid=7, nvml=nvml) == 100
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("nvml", "uuid"),
    [
        (StandInNvml({8: 30}), "1234"),
        (StandInNvml({7: None}), "1234"),
        (StandInNvml({7: 100}), "9999"),
        (StandInNvml({7: 100}, fails=("init",)), "1234"),
        (StandInNvml({7: 100}, fails=("processes",)), "1234"),
    ],
    ids=["process not found", "no figure", "device not found", "no driver", "permission denied"],
)
def test_what_the_driver_does_not_tell_is_none(nvml: StandInNvml, uuid: str) -> None:
    assert process_memory(uuid, pid=7, nvml=nvml) is None
    assert nvml.open == 0


@pytest.mark.parametrize("fails", ["init", "processes", "info"])
def test_memory_of_others_is_none_where_the_driver_does_not_tell(fails: str) -> None:
    assert memory_of_others("1234", pid=7, nvml=StandInNvml({7: 100}, used=200, fails=(fails,))) is None


def test_no_nvml_at_all_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert process_memory("1234") is None


def test_the_real_nvml_answers_or_says_none() -> None:
    assert process_memory("00000000-0000-0000-0000-000000000000") is None


def test_a_cuda_phase_reads_the_allocator_and_the_driver() -> None:
    cuda, nvml = StandInCuda(), StandInNvml({os.getpid(): 900, 1: 50}, used=1000)
    meter = CudaMeter(torch.device("cuda:0"), cuda=cuda, nvml=nvml)
    with meter.phase("train_step", live=[nn.Linear(2, 2)]):
        cuda.allocated, cuda.reserved = 300, 400
    figures = meter.phases["train_step"]
    assert (figures.allocated, figures.reserved, figures.process) == (300, 400, 900)
    assert meter.already_used == 100
    assert meter.source == "cuda"
    with meter.phase("train_step"):
        cuda.allocated, cuda.reserved = 200, 500
    figures = meter.phases["train_step"]
    assert (figures.allocated, figures.reserved) == (300, 500)
    assert cuda.resets == 2


def test_a_cuda_phase_without_a_driver_to_ask_has_no_process_figure() -> None:
    meter = CudaMeter(torch.device("cuda"), cuda=StandInCuda(), nvml=StandInNvml({}, fails=("init",)))
    with meter.phase("build"):
        pass
    assert meter.phases["build"].process is None
    assert meter.already_used is None


def test_a_cpu_phase_counts_what_it_is_told_lives() -> None:
    meter = open_meter(CPU)
    layer = nn.Linear(128, 128, bias=False)
    optimizer = torch.optim.AdamW(layer.parameters())
    for live in ([layer, optimizer], []):
        with meter.phase("train_step", live=live):
            for _ in range(2):
                optimizer.zero_grad()
                layer(torch.zeros(1, 128)).sum().backward()
                optimizer.step()
    figures = meter.phases["train_step"]
    assert meter.source == "cpu"
    assert figures.allocated is not None
    assert figures.allocated >= 4 * 64 * 1024
    assert figures.parts is not None
    assert sum(figures.parts.values()) == figures.allocated
    assert (figures.reserved, figures.process) == (None, None)
    assert figures.resident is not None


def test_a_cpu_phase_that_is_told_nothing_has_no_allocated_figure() -> None:
    meter = open_meter(CPU)
    with meter.phase("build"):
        torch.zeros(1000)
    figures = meter.phases["build"]
    assert (figures.allocated, figures.parts) == (None, None)
    assert figures.resident is not None
    assert figures.resident > MIB


def test_the_resident_set_is_the_phase_s_own_where_the_kernel_allows() -> None:
    meter = open_meter(CPU)
    with meter.phase("build"):
        large = torch.ones(64 * MIB)
    del large
    with meter.phase("evaluate"):
        pass
    if meter.resident_scope == "process":
        pytest.skip("the kernel does not let a process reset its peak")
    build, evaluate = (meter.phases[name].resident or 0 for name in ("build", "evaluate"))
    assert build - evaluate > 200 * MIB


def test_without_proc_the_resident_set_is_that_of_the_process(tmp_path: Path) -> None:
    meter = HostMeter(CPU, proc=tmp_path / "absent")
    with meter.phase("build"):
        pass
    assert meter.resident_scope == "process"
    assert (meter.phases["build"].resident or 0) > MIB


def test_a_peak_that_cannot_be_reset_is_that_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "clear_refs").mkdir()
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t    2048 kB\n")
    meter = HostMeter(CPU, proc=tmp_path)
    with meter.phase("build"):
        pass
    assert meter.resident_scope == "process"
    assert meter.phases["build"].resident == 2 * MIB


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_phase_that_fails_is_measured_and_closed(kind: str) -> None:
    meter: Any = open_meter(CPU) if kind == "cpu" else CudaMeter(CPU, cuda=StandInCuda(), nvml=StandInNvml({}))
    with pytest.raises(MemoryError), meter.phase("train_step", live=[torch.zeros(128)]):
        raise MemoryError
    assert meter.phases["train_step"].allocated == (512 if kind == "cpu" else 0)
    with meter.phase("evaluate"):
        pass
    assert list(meter.phases) == ["train_step", "evaluate"]


def test_phases_do_not_nest() -> None:
    meter = open_meter(CPU)
    with meter.phase("build"), pytest.raises(RuntimeError, match="'evaluate' inside phase 'build'"):
        meter.phase("evaluate").__enter__()
    assert isinstance(meter.phases["build"], PhaseMemory)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_cuda_phase() -> None:
    meter = open_meter(torch.device("cuda"))
    with meter.phase("build"):
        kept = torch.zeros(MIB, device="cuda")
    assert (meter.phases["build"].allocated or 0) >= 4 * MIB
    del kept


def test_importing_the_meters_is_light() -> None:
    program = "import sys, petlbench.memory.measure, petlbench.memory.nvml; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
