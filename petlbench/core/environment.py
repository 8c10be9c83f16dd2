"""Where a run happened: packages, code state and hardware."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import petlbench

__all__ = [
    "available_devices",
    "default_cache_dir",
    "default_data_root",
    "describe_environment",
    "file_digest",
    "free_memory",
    "package_versions",
    "processor_vendor",
    "usable_cores",
]

PACKAGES = ("torch", "torchvision", "timm", "peft", "numpy", "scikit-learn", "pandas", "optuna", "mlflow", "pillow")


def describe_environment() -> dict[str, Any]:
    """Describe this machine and installation: packages, git state, hardware and driver."""
    return {
        "petlbench": petlbench.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "git": _git_state(Path(petlbench.__file__).resolve().parent),
        "hardware": _hardware(),
    }


def default_cache_dir() -> Path:
    """The folder of preloaded features and stored images: ``$PETLBENCH_CACHE``, else the user's cache folder."""
    from platformdirs import user_cache_path

    named = os.environ.get("PETLBENCH_CACHE")
    return Path(named) if named else user_cache_path("petlbench")


def default_data_root() -> Path:
    """The folder below which datasets lie: ``$PETLBENCH_DATA``, else ``./data``."""
    return Path(os.environ.get("PETLBENCH_DATA", "data"))


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that numbers depend on; None for one that is not installed."""
    return {name: _version(name) for name in PACKAGES}


def available_devices() -> list[str]:
    """Kinds of device that a run can use here, the fastest first."""
    import torch

    accelerators = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [*(name for name, there in accelerators.items() if there), "cpu"]


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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout that the code runs from; None for an installed package."""
    if not (folder.parent / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True, timeout=10
        )
        status = subprocess.run(
            ["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}


def _hardware() -> dict[str, Any]:
    import torch

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": cuda,
        "cuda": torch.version.cuda,
    }


def processor_vendor() -> str:
    """Who made the processor, in its own words: ``GenuineIntel``, ``AuthenticAMD``; empty where it does not say."""
    return _cpuinfo("vendor_id")


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    """A line of Linux's description of the first core; empty where there is none."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
