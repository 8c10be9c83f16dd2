"""The machine that a run works on: its device, and the state of torch that makes a run repeatable."""

from __future__ import annotations

import torch

from petlbench.core.environment import available_devices
from petlbench.core.errors import InputError

__all__ = ["choose_device", "make_repeatable"]


def choose_device(name: str) -> torch.device:
    """Return a device that is there.

    Args:
        name: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        InputError: When it is not there.
    """
    available = available_devices()
    if name not in available:
        raise InputError(
            f"--device {name}: not available here",
            hint=f"available: {', '.join(available)}; a dry run can be made for any device",
            kind="bad_setting",
        )
    return torch.device(name)


def make_repeatable(threads: int) -> None:
    """Make torch give the same bits again on the same machine.

    Args:
        threads: Threads of one operator.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # The mode would also fill every new tensor, which only serves to find reads of memory that was never written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined, unused-ignore]
