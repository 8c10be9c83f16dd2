"""What the driver is asked and what is made of its answers, against a stand-in for its library."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from petlbench.memory.nvml import Gpu, open_driver

Nvml = Callable[..., Any]
ONE = Gpu(0, "1234")
TWO = {"GPU-aaaa-1": [], "GPU-bbbb-2": []}
SPLIT = {"GPU-aaaa-1": ["MIG-cccc-1", "MIG-dddd-2"], "GPU-bbbb-2": []}


@pytest.fixture(autouse=True)
def _number_seven(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process, to the driver."""
    monkeypatch.setattr("petlbench.memory.nvml.os.getpid", lambda: 7)


def held(gpu: Gpu, nvml: Any) -> int | None:
    with open_driver(gpu, nvml=nvml) as driver:
        return driver.process_memory() if driver is not None else None


def held_by_others(gpu: Gpu, nvml: Any = None, *, touched: bool = False) -> int | None:
    with open_driver(gpu, nvml=nvml) as driver:
        return driver.memory_of_others(touched=touched) if driver is not None else None


@pytest.mark.parametrize("uuid", ["1234", "GPU-1234"])
def test_the_driver_tells_what_a_process_holds(stand_in_nvml: Nvml, uuid: str) -> None:
    nvml = stand_in_nvml({7: 100, 8: 30}, used=(200, 260))
    assert held(Gpu(0, uuid), nvml) == 100
    assert held_by_others(Gpu(0, uuid), nvml) == 100
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("processes", "fails", "uuid"),
    [
        ({8: 30}, (), "1234"),
        ({7: None}, (), "1234"),
        ({7: 2**64 - 1}, (), "1234"),
        ({7: [100, None]}, (), "1234"),
        ({7: 100}, (), "9999"),
        ({7: 100}, ("Init",), "1234"),
        ({7: 100}, ("GetComputeRunningProcesses", "GetComputeRunningProcesses_v2"), "1234"),
    ],
    ids=["process not found", "none", "no value", "half", "device not found", "no driver", "permission denied"],
)
def test_what_the_driver_does_not_tell_is_none(
    stand_in_nvml: Nvml, processes: dict[int, int | None], fails: tuple[str, ...], uuid: str
) -> None:
    nvml = stand_in_nvml(processes, fails=fails)
    assert held(Gpu(0, uuid), nvml) is None
    assert nvml.open == 0


def test_the_entries_of_one_process_add_up(stand_in_nvml: Nvml) -> None:
    assert held(ONE, stand_in_nvml({7: [100, 20], 8: 1})) == 120


def test_an_older_driver_is_asked_in_its_own_words(stand_in_nvml: Nvml) -> None:
    nvml = stand_in_nvml(
        {7: 100}, used=(200, 260), fails=("GetMemoryInfo_v2",), mismatched=("GetComputeRunningProcesses",)
    )
    assert held(ONE, nvml) == 100
    assert held_by_others(ONE, nvml) == 160


@pytest.mark.parametrize(
    "fails",
    [
        ("Init",),
        ("GetComputeRunningProcesses", "GetComputeRunningProcesses_v2"),
        ("GetMemoryInfo", "GetMemoryInfo_v2"),
    ],
)
def test_memory_of_others_is_none_where_the_driver_does_not_tell(stand_in_nvml: Nvml, fails: tuple[str, ...]) -> None:
    assert held_by_others(ONE, stand_in_nvml({7: 100}, used=(200, 260), fails=fails)) is None


def test_a_process_that_the_driver_knows_by_another_id_is_not_taken_for_another(stand_in_nvml: Nvml) -> None:
    nvml = stand_in_nvml({70007: 100}, used=(200, 200))
    assert held_by_others(ONE, nvml) == 200
    assert held_by_others(ONE, nvml, touched=True) is None


@pytest.mark.parametrize(
    ("gpu", "found"),
    [
        (Gpu(0, "bbbb-2"), "GPU-bbbb-2"),
        (Gpu(0, "bbbb-2", visible="1"), "GPU-bbbb-2"),
        (Gpu(0, "bbbb-2", visible="GPU-aaaa-1"), "GPU-bbbb-2"),  # what torch says is what it uses
        (Gpu(1, visible="GPU-aaaa-1,GPU-bbbb-2"), "GPU-bbbb-2"),
        (Gpu(1, visible="GPU-aaaa, GPU-bb"), "GPU-bbbb-2"),
        (Gpu(0, visible="GPU-"), None),
        (Gpu(0, visible="1", in_bus_order=True), "GPU-bbbb-2"),
        (Gpu(1, in_bus_order=True), "GPU-bbbb-2"),
        (Gpu(1), None),  # CUDA may count the fastest first
        (Gpu(2, in_bus_order=True, visible="0,1"), None),
        (Gpu(0, "eeee-5", in_bus_order=True), None),
    ],
)
def test_one_of_several_gpus_is_found(stand_in_nvml: Nvml, gpu: Gpu, found: str | None) -> None:
    nvml = stand_in_nvml({"GPU-aaaa-1": {7: 1}, "GPU-bbbb-2": {7: 2}}, gpus=TWO)
    assert held(gpu, nvml) == {"GPU-bbbb-2": 2, None: None}[found]


def test_a_gpu_that_is_alone_has_one_number_only(stand_in_nvml: Nvml) -> None:
    assert held(Gpu(0), stand_in_nvml({7: 5})) == 5
    assert held(Gpu(0), stand_in_nvml({7: 5}, fails=("GetHandleByIndex",))) is None


@pytest.mark.parametrize(
    ("gpu", "bytes_held"),
    [
        (Gpu(0, "aaaa-1", visible="MIG-dddd-2"), 4),  # torch tells the whole GPU's UUID
        (Gpu(0, "dddd-2", visible="MIG-dddd-2"), 4),
        (Gpu(0, "aaaa-1", visible="MIG-dd"), 4),
        (Gpu(0, visible="MIG-cccc-1"), 3),
        (Gpu(0, "cccc-1"), 3),
        (Gpu(0, "MIG-cccc-1"), 3),
        (Gpu(0, "aaaa-1"), 1),
        (Gpu(0, "aaaa-1", visible="MIG-eeee-9"), 1),
    ],
)
def test_a_mig_instance_is_asked_and_not_its_gpu(stand_in_nvml: Nvml, gpu: Gpu, bytes_held: int) -> None:
    holds = {"GPU-aaaa-1": {7: 1}, "GPU-bbbb-2": {7: 2}, "MIG-cccc-1": {7: 3}, "MIG-dddd-2": {7: 4}}
    assert held(gpu, stand_in_nvml(holds, gpus=SPLIT)) == bytes_held


def test_no_nvml_at_all_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with open_driver(ONE) as driver:
        assert driver is None


def test_the_real_nvml_answers_or_says_none() -> None:
    assert held_by_others(Gpu(0, "00000000-0000-0000-0000-000000000000")) is None


def test_importing_the_meters_is_light() -> None:
    program = "import sys, petlbench.memory.measure, petlbench.memory.nvml; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
