"""The precision in which frozen features are extracted: as it was asked for, or what this machine is faster in."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

from petlbench.core.environment import available_devices, default_cache_dir, describe_hardware, package_versions
from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.core.request import Request
from petlbench.core.user_files import read_json
from petlbench.features.products import PackedWeights, fast_linear
from petlbench.models.precision import autocast

AUTO = "auto"
_PRECISIONS = ("fp32", "bf16")
# What is lost has to be worth it: bf16 is taken from this share of fp32's time on.
_WORTH = 0.75
_SECONDS, _LEAST_ROUNDS = 0.05, 3
_ROWS = {"cpu": 256}
_MOST_ROWS = 8192


def extract_precision(request: Request, device: str, threads: int, width: int, *, extracts: bool) -> str | None:
    """What a config says of the precision of extraction; None where it is that of the run.

    Args:
        request: What was asked for.
        device: Where the run computes.
        threads: Threads of one operator.
        width: Of the backbone.
        extracts: Whether the method takes anything from a frozen backbone.

    Raises:
        InputError: When nothing is extracted, or the machine cannot be asked what it is faster in.
    """
    name = request.extract_precision
    if name is None:
        return None
    if not extracts:
        raise InputError(
            f"--extract-precision {name}: {request.method}, with these settings, takes nothing from a frozen backbone",
            hint="leave it out",
            kind="bad_setting",
        )
    precision = faster_precision(device, threads, width) if name == AUTO else name
    return None if precision == request.precision else precision


def faster_precision(device: str, threads: int, width: int) -> str:
    """``bf16`` where this machine multiplies so wide a backbone's matrices much faster in it, else ``fp32``.

    It is measured once, and remembered beside the feature cache: every run on this machine has the same answer.

    Raises:
        InputError: When the device is not here, or the answer cannot be remembered.
    """
    hint = "say which one: --extract-precision fp32 or bf16"
    if device not in available_devices():
        message = f"--extract-precision auto is measured on the device itself, and {device} is not available here"
        raise InputError(message, hint=hint, kind="bad_setting")
    hardware = describe_hardware()
    about = {
        "hardware": hardware["processor"] if device == "cpu" else hardware["gpus"] or device,
        "threads": threads if device == "cpu" else 0,
        "width": width,
        "torch": package_versions()["torch"],
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:20]
    file = default_cache_dir() / "machine" / f"{key}.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):  # of processes that ask at a time, one measures
            if (precision := _remembered(file)) is None:
                share = _share(torch.device(device), threads, width)
                precision = "bf16" if share <= _WORTH else "fp32"
                with write_atomically(file) as temporary:
                    temporary.write_text(json.dumps({**about, "bf16_over_fp32": share, "precision": precision}))
    except OSError as error:
        message = f"--extract-precision auto is remembered in {file}, which cannot be written: {error}"
        raise InputError(message, hint=hint, kind="bad_setting") from error
    return precision


def _remembered(file: Path) -> str | None:
    """The answer of an earlier measurement; None where there is none, or none that can be read."""
    try:
        precision = read_json(file).get("precision") if file.exists() else None
    except InputError:
        return None
    return precision if precision in _PRECISIONS else None


def _share(device: torch.device, threads: int, width: int) -> float:
    """The time of a product in bf16 over that in fp32: the best of each, in turns."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            fp32, bf16 = (_timed(device, precision, width) for precision in _PRECISIONS)
            ends, times = time.perf_counter() + _SECONDS, [(fp32(), bf16())]
            while len(times) < _LEAST_ROUNDS or time.perf_counter() < ends:
                times.append((fp32(), bf16()))
    finally:
        torch.set_num_threads(before)
    return min(bf16_time for _, bf16_time in times) / min(fp32_time for fp32_time, _ in times)


def _timed(device: torch.device, precision: str, width: int) -> Callable[[], float]:
    """What multiplies once as extraction does, and tells how long it took; it is warm already."""
    layer = nn.Linear(width, 4 * width, device=device)
    tokens = torch.randn(_ROWS.get(device.type, _MOST_ROWS), width, device=device)
    packed: PackedWeights = {}

    def multiply() -> float:
        began = time.perf_counter()
        with autocast(device, precision), fast_linear(device, precision, packed):
            float(layer(tokens)[0, 0])  # which waits for a device
        return time.perf_counter() - began

    multiply()
    return multiply
