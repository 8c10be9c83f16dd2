"""Meters: the host's for real, CUDA's and MPS's against stand-ins."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from petlbench.memory.measure import CudaMeter, MemoryMeter, MpsMeter, PhaseMemory, open_meter

MIB = 2**20
CPU = torch.device("cpu")
Nvml = Callable[..., Any]


class StandInCuda:
    """Keeps the allocator's peaks as torch.cuda does."""

    def __init__(self, *, uuid: str | None = "1234", current: int = 0) -> None:
        self.allocated = self.reserved = 0
        self.calls: list[str] = []
        self.uuid, self.current = uuid, current

    def get_device_properties(self, device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(uuid=self.uuid) if self.uuid is not None else SimpleNamespace()

    def current_device(self) -> int:
        return self.current

    def memory_reserved(self, device: torch.device) -> int:
        return self.reserved

    def empty_cache(self) -> None:
        self.calls.append("empty")

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        self.calls.append("reset")
        self.allocated = self.reserved = 0

    def max_memory_allocated(self, device: torch.device) -> int:
        return self.allocated

    def max_memory_reserved(self, device: torch.device) -> int:
        return self.reserved


def test_a_cuda_phase_reads_the_allocator_and_the_driver(stand_in_nvml: Nvml) -> None:
    cuda, nvml = StandInCuda(), stand_in_nvml({os.getpid(): 900, 1: 50}, used=(1000, 1500))
    meter = CudaMeter(torch.device("cuda:0"), cuda=cuda, nvml=nvml)
    with meter.phase("train_step"):
        cuda.allocated, cuda.reserved = 300, 400
    figures = meter.phases["train_step"]
    assert (figures.allocated, figures.reserved, figures.process, figures.parts) == (300, 400, 900, None)
    assert meter.already_used == 100
    assert meter.source == "cuda"
    with meter.phase("train_step"):
        cuda.allocated, cuda.reserved = 200, 500
    figures = meter.phases["train_step"]
    assert (figures.allocated, figures.reserved) == (300, 500)
    assert nvml.open == 0


def test_the_process_figure_is_the_largest_of_the_phase(stand_in_nvml: Nvml) -> None:
    nvml, asked = stand_in_nvml({os.getpid(): 400}), threading.Event()
    listed = nvml._listed

    def answer(handle: str) -> Any:
        entries = listed(handle)
        if entries[0].usedGpuMemory == 900:
            asked.set()
        return entries

    nvml._listed = answer
    meter = CudaMeter(torch.device("cuda"), cuda=StandInCuda(), nvml=nvml)

    def fail() -> None:
        with meter.phase("train_step"):
            nvml.processes = {os.getpid(): 900}
            assert asked.wait(5)
            nvml.processes = {os.getpid(): 500}
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    assert meter.phases["train_step"].process == 900
    with meter.phase("evaluate"):
        pass
    assert meter.phases["evaluate"].process == 500
    assert nvml.open == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "petlbench-memory"]


def test_a_phase_starts_with_an_empty_cache_once(stand_in_nvml: Nvml) -> None:
    cuda = StandInCuda()
    meter = CudaMeter(torch.device("cuda"), cuda=cuda, nvml=stand_in_nvml({}))
    meter.phases["train_step"] = PhaseMemory(allocated=70)  # of an attempt before, from its checkpoint
    for name in ("train_step", "train_step", "evaluate"):
        with meter.phase(name):
            cuda.allocated += 5
    assert cuda.calls == ["empty", "reset", "reset", "empty", "reset"]
    assert meter.phases["train_step"].allocated == 70


def test_a_phase_is_rid_of_what_waits_for_the_garbage_collector(stand_in_nvml: Nvml) -> None:
    cycle: list[object] = [nn.Linear(2, 2)]
    cycle.append(cycle)
    gone = weakref.ref(cycle[0])
    meter = CudaMeter(torch.device("cuda"), cuda=StandInCuda(), nvml=stand_in_nvml({}))
    gc.disable()
    try:
        del cycle
        assert gone() is not None
        with meter.phase("train_step"):
            assert gone() is None
    finally:
        gc.enable()


def test_a_cuda_peak_is_split_and_what_no_tensor_shows_is_other(stand_in_nvml: Nvml) -> None:
    # The stand-in for a GPU is the host, so that the tensors that are counted are real ones.
    cuda, layer = StandInCuda(), nn.Linear(128, 128, bias=False)
    optimizer = torch.optim.AdamW(layer.parameters())
    meter = CudaMeter(CPU, cuda=cuda, nvml=stand_in_nvml({}))
    image = torch.zeros(1, 128)
    for _ in range(2):
        with meter.phase("train_step", live=[layer, optimizer, image]):
            cuda.allocated = 0
            optimizer.zero_grad()
            layer(image).sum().backward()
            optimizer.step()
            cuda.allocated += MIB
    figures = meter.phases["train_step"]
    assert figures.allocated == MIB
    assert figures.parts is not None
    assert sum(figures.parts.values()) == MIB
    weights = 128 * 128 * 4
    assert (figures.parts["parameters"], figures.parts["gradients"]) == (weights, weights)
    assert figures.parts["other"] > 512


def test_a_cuda_peak_that_cannot_be_split_stays(stand_in_nvml: Nvml) -> None:
    cuda = StandInCuda()
    meter = CudaMeter(CPU, cuda=cuda, nvml=stand_in_nvml({}))
    with meter.phase("train_step", live=[torch.zeros(MIB)]):
        cuda.allocated = 100
    assert (meter.phases["train_step"].allocated, meter.phases["train_step"].parts) == (100, None)


def test_a_cuda_phase_without_a_driver_to_ask_has_no_process_figure(stand_in_nvml: Nvml) -> None:
    meter = CudaMeter(torch.device("cuda"), cuda=StandInCuda(), nvml=stand_in_nvml({}, fails=("Init",)))
    with meter.phase("build"):
        pass
    assert meter.phases["build"].process is None
    assert meter.already_used is None


def test_the_gpu_is_the_one_that_torch_and_the_environment_name(
    stand_in_nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = stand_in_nvml(
        {"GPU-aaaa": {os.getpid(): 1}, "GPU-bbbb": {os.getpid(): 2}, "MIG-cccc": {os.getpid(): 3}},
        gpus={"GPU-aaaa": [], "GPU-bbbb": ["MIG-cccc"]},
        used=(10, 10),
    )

    def others(device: str, **told: Any) -> int | None:
        return CudaMeter(torch.device(device), cuda=StandInCuda(**told), nvml=nvml).already_used

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,GPU-bb,MIG-cccc")
    assert (others("cuda:1", uuid="aaaa"), others("cuda:1", uuid=None)) == (9, 8)
    assert others("cuda:2", uuid="bbbb") == 7
    assert others("cuda", uuid=None, current=1) == 8
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert others("cuda", uuid=None) is None
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert others("cuda", uuid=None) == 8


def test_memory_that_may_be_this_process_s_own_is_not_called_others(stand_in_nvml: Nvml) -> None:
    nvml, cuda = stand_in_nvml({70007: 900}, used=(1000, 1000)), StandInCuda()
    assert CudaMeter(torch.device("cuda"), cuda=cuda, nvml=nvml).already_used == 1000
    cuda.reserved = 400
    assert CudaMeter(torch.device("cuda"), cuda=cuda, nvml=nvml).already_used is None


class StandInMps:
    """Answers like torch.mps."""

    def __init__(self) -> None:
        self.driver, self.cached = 0, 0

    def empty_cache(self) -> None:
        self.driver, self.cached = self.driver - self.cached, 0

    def driver_allocated_memory(self) -> int:
        return self.driver


def test_an_mps_phase_counts_tensors_and_asks_metal_at_its_borders() -> None:
    mps = StandInMps()
    meter = MpsMeter(CPU, mps=mps)  # real tensors, of the host
    mps.driver, mps.cached = 900, 300
    with meter.phase("train_step", live=[torch.zeros(128)]):
        mps.driver += 50
    with meter.phase("train_step", live=[torch.zeros(128)]):
        mps.driver = 100
    figures = meter.phases["train_step"]
    assert (meter.source, figures.allocated, figures.process, figures.reserved) == ("mps", 512, 650, None)
    assert figures.parts is not None
    assert figures.parts["other"] == 512
    with meter.phase("build"):
        pass
    assert (meter.phases["build"].allocated, meter.phases["build"].process) == (None, 100)


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
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("the kernel does not let a process reset its peak")
    build, evaluate = (meter.phases[name].resident or 0 for name in ("build", "evaluate"))
    assert build - evaluate > 200 * MIB


def test_without_proc_the_resident_set_is_that_of_the_process(tmp_path: Path) -> None:
    meter = MemoryMeter(CPU, proc=tmp_path / "absent")
    with meter.phase("build"):
        pass
    assert (meter.phases["build"].resident or 0) > MIB


def test_a_peak_that_cannot_be_reset_is_that_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "clear_refs").mkdir()
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t    2048 kB\n")
    meter = MemoryMeter(CPU, proc=tmp_path)
    with meter.phase("build"):
        pass
    assert meter.phases["build"].resident == 2 * MIB


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_phase_that_fails_is_measured_and_closed(kind: str, stand_in_nvml: Nvml) -> None:
    meter = open_meter(CPU) if kind == "cpu" else CudaMeter(CPU, cuda=StandInCuda(), nvml=stand_in_nvml({}))
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_cuda_phase() -> None:
    meter = open_meter(torch.device("cuda"))
    layer = nn.Linear(1024, 1024, device="cuda")
    optimizer = torch.optim.AdamW(layer.parameters())
    for _ in range(2):
        with meter.phase("train_step", live=[layer, optimizer]):
            optimizer.zero_grad()
            layer(torch.zeros(8, 1024, device="cuda")).sum().backward()
            optimizer.step()
    figures = meter.phases["train_step"]
    assert figures.allocated is not None
    assert figures.parts is not None
    assert (figures.reserved or 0) >= figures.allocated >= 4 * 4 * MIB
    assert sum(figures.parts.values()) == figures.allocated
    assert figures.parts["optimizer"] >= 2 * figures.parts["parameters"]
    # Inside a container the driver may know the process by another number.
    assert figures.process is None or figures.process >= (figures.reserved or 0)
