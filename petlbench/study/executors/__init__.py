"""Executors: where the runs of a study are carried out.

Nothing heavy is imported before an executor is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from petlbench.study.executors.job import Executor

__all__ = ["open_executor"]


def open_executor(
    kind: Literal["local", "ray"],
    *,
    workers: int,
    devices: Sequence[str] = (),
    address: str | None = None,
    cpus: float = 1,
    gpus: float = 0,
) -> Executor:
    """Choose where runs are carried out; nothing is started before the first job.

    Args:
        kind: ``local`` or ``ray``.
        workers: How many runs at once, at most; 0 for this process (local) or as many as there is room for (Ray).
        devices: CUDA devices that local workers take in turn; empty for those that are there.
        address: Of the Ray cluster; None for one on this machine that ends with the study.
        cpus: CPUs of a run on Ray.
        gpus: GPUs of a run on Ray; a fraction lets runs share one.

    Raises:
        InputError: When Ray is not installed, or this system has no worker processes.
    """
    if kind == "ray":
        from petlbench.study.executors.ray_cluster import RayExecutor

        return RayExecutor(workers=workers, address=address, cpus=cpus, gpus=gpus)
    if workers == 0:
        from petlbench.study.executors.in_process import InProcessExecutor

        return InProcessExecutor()
    from petlbench.study.executors.local import LocalExecutor

    return LocalExecutor(workers, devices)
