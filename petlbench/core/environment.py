"""Where a run happens: packages, code state, hardware, and the state of torch that makes it repeatable."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import petlbench
from petlbench.core.errors import InputError

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "torchvision", "timm", "peft", "numpy", "scikit-learn", "pandas", "optuna", "mlflow", "pillow")
# Numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def interpreter(code: str) -> list[str]:
    """Return the command that carries out code in a process of its own, which finds modules where this one does.

    Without that it would look first in the folder that it happens to start in.
    """
    return [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]


def set_thread_defaults() -> None:
    """Say how threads wait and how sums are made repeatable, where the user did not; before torch is imported."""
    # By default torch's threads spin while they wait. On a shared machine they then take the cores from those that they
    # wait for, and a run can become ten times slower. Asleep at once, they take longer to wake than a small product
    # takes: about 15 microseconds of spinning make a small network's step a quarter faster on two free cores, and as
    # much slower where two processes share them. OpenMP reads this once, when torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Without a fixed workspace cuBLAS may choose another algorithm, and other last bits, from call to call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def heavy_imports() -> Iterator[None]:
    """A context in which torch and timm are imported: Python does not look for garbage, a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


_command_began: list[float] = []


def begin_command() -> None:
    """Note that a command begins, before what it needs is imported."""
    _command_began[:] = [time.perf_counter()]


def seconds_of_start() -> float:
    """Seconds since `begin_command`, once; 0 for further runs of a process, and where no command began."""
    return time.perf_counter() - _command_began.pop() if _command_began else 0.0


def describe_environment() -> dict[str, Any]:
    """Describe this machine and installation: packages, git state, hardware and driver."""
    return {
        "petlbench": petlbench.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "git": _git_state(Path(petlbench.__file__).resolve().parent),
        "hardware": describe_hardware(),
    }


def describe_hardware() -> dict[str, Any]:
    """Describe this machine: processor, cores, memory in bytes, GPUs and driver."""
    import torch

    return {
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
    }


def default_cache_dir() -> Path:
    """The folder of preloaded features and stored images: ``$PETLBENCH_CACHE``, else the user's cache folder."""
    from platformdirs import user_cache_path

    named = os.environ.get("PETLBENCH_CACHE")
    return Path(named) if named else user_cache_path("petlbench")


def default_data_root() -> Path:
    """The folder below which datasets lie: ``$PETLBENCH_DATA``, else ``./data``."""
    return Path(os.environ.get("PETLBENCH_DATA", "data"))


@cache
def code_state() -> str:
    """A digest of sizes and times of petlbench's own files, as this process found them."""
    digest = hashlib.sha256()
    for file in sorted(Path(petlbench.__file__).parent.rglob("*.py")):
        status = file.stat()
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that numbers depend on; None for one that is not installed."""
    return {name: _version(name) for name in _PACKAGES}


@cache
def _version(name: str) -> str | None:
    """A package's version as this process found it at first: what was imported stays, whatever is installed later."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def available_devices() -> list[str]:
    """Kinds of device that a run can use here, the fastest first."""
    import torch

    accelerators = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [*(name for name, there in accelerators.items() if there), "cpu"]


def choose_device(name: str) -> torch.device:
    """Return a device that is there.

    Raises:
        InputError: When it is not there.
    """
    import torch

    available = available_devices()
    if name not in available:
        raise InputError(
            f"--device {name}: not available here",
            hint=f"available: {', '.join(available)}; a dry run can be made for any device",
            kind="bad_setting",
        )
    return torch.device(name)


def make_repeatable(threads: int) -> None:
    """Make torch give the same bits again on the same machine, with so many threads an operator."""
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # The mode would also fill every new tensor, which only serves to find reads of memory that was never written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined, unused-ignore]


def keep_freed_memory() -> bool:
    """Let the C library keep memory that is freed, for tensors to come; returns whether it does so from now on.

    By default glibc gives the top of its heap back to the system as often as enough of it is free, which is after each
    step and each layer on a CPU, and the next one takes it again, page by page. It keeps up to 1 GiB then. Where the
    user set the threshold, and with another library, nothing changes.
    """
    if "MALLOC_TRIM_THRESHOLD_" in os.environ or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    # The second one would stay at 128 KiB, once the first is set; it is the most that glibc lets it grow to by itself.
    return all(library.mallopt(name, size) for name, size in ((_TRIM_THRESHOLD, 2**30), (_MMAP_THRESHOLD, 2**25)))


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Host memory in bytes that can be taken without swapping."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@cache
def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout that the code runs from; None for an installed package."""
    if not (folder.parent / ".git").exists():
        return None

    def ask(*words: str) -> str:
        command = ["git", *words]
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def processor_vendor() -> str:
    """Who made the processor, in its own words: ``GenuineIntel``, ``AuthenticAMD``; empty where it does not say."""
    return _cpuinfo("vendor_id")


def _cpuinfo(key: str) -> str:
    """A line of Linux's description of the first core; empty where there is none."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
