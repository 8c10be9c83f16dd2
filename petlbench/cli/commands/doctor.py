"""``petlbench doctor``: what petlbench finds on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from petlbench.cli.options import cache_dir_option, data_root_option, json_option, output_option
from petlbench.cli.output import print_facts, print_json

__all__ = ["command"]


@click.command("doctor", epilog="Example: petlbench doctor --json")
@data_root_option
@cache_dir_option
@output_option
@json_option
def command(data_root: Path, cache_dir: Path, output: Path, json: bool) -> None:
    """Show versions, devices, free memory, and where weights and data would be looked for."""
    report = _report(data_root, cache_dir, output)
    if json:
        print_json(report)
        return
    for title, facts in report.items():
        print_facts(title, {name: _text(value) for name, value in facts.items()})


def _report(root: Path, cache: Path, output: Path) -> dict[str, Any]:
    import shutil

    from huggingface_hub.constants import HF_HUB_CACHE

    from petlbench.core.environment import describe_environment, free_memory
    from petlbench.core.files import existing_part

    environment = describe_environment()
    return {
        "versions": {
            "petlbench": environment["petlbench"],
            "python": environment["python"],
            **environment["packages"],
        },
        "devices": _devices(),
        "memory and disk": {
            "host memory free, bytes": free_memory(),
            "host memory, bytes": environment["hardware"]["memory"],
            "disk free for results, bytes": shutil.disk_usage(existing_part(output)).free,
            "disk free for preloaded features, bytes": shutil.disk_usage(existing_part(cache)).free,
        },
        "places": {
            "weights from the hub are kept in": str(HF_HUB_CACHE),
            "datasets are looked for below": str(root.absolute()),
            "preloaded features are kept in": str(cache.absolute()),
            "results are written to": str(output.absolute()),
        },
    }


def _devices() -> dict[str, Any]:
    import torch

    from petlbench.core.environment import usable_cores

    devices: dict[str, Any] = {"cpu": f"{usable_cores()} cores"}
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        devices[f"cuda:{index}"] = f"{torch.cuda.get_device_name(index)}, {free} of {total} bytes free"
    if not torch.cuda.is_available():
        devices["cuda"] = None
    devices["mps"] = "available" if torch.backends.mps.is_available() else None
    return devices


def _text(value: object) -> str:
    if value is None:
        return "not found"
    return f"{value:,}" if isinstance(value, int) else str(value)
