"""The result of a run: the versioned truth, of which every table and tracker is a view."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically

__all__ = [
    "FILE",
    "SCHEMA",
    "Inference",
    "InferenceMemory",
    "Memory",
    "Parameters",
    "PhaseMemory",
    "Result",
    "Scores",
    "Status",
    "iter_results",
    "read_result",
    "write_result",
]


SCHEMA = 1
FILE = "result.json"

Status = Literal["finished", "failed", "oom", "interrupted", "pruned", "timeout", "unsupported"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Parameters(_Part):
    """Parameter counts; ``ratio`` is learnable over (adapted backbone + method + head), a fraction."""

    learnable: int
    total: int
    ratio: float
    ratio_published: float = Field(description="the same over the total as the method's own paper counts it")


class Scores(_Part):
    """PPE and PME of the test AUC; PME is None until a run of ``full`` to compare with is known."""

    ppe: float | None = None
    pme: float | None = None
    pme_reference: dict[str, Any] | None = None


class Memory(_Part):
    """Peak memory of the training step in bytes, each with what it is; None where it cannot be had."""

    allocated: int | None
    reserved: int | None
    process: int | None
    resident: int | None = Field(default=None, description="peak resident host memory of the whole process")
    source: str = Field(description="cuda, cpu, mps or predicted")
    phases: dict[str, Any] = Field(default_factory=dict)
    parts: dict[str, int] | None = None
    others: int | None = Field(default=None, description="what others held on the device when the run began")


class InferenceMemory(_Part):
    """Peak memory of prediction in bytes, each as in `Memory`; None where it cannot be had."""

    allocated: int | None = None
    reserved: int | None = None
    process: int | None = None
    resident: int | None = None
    parts: dict[str, int] | None = None
    source: str = Field(description="cuda, cpu, mps or predicted")


class Inference(_Part):
    """What prediction costs with the trained module in evaluation mode, frozen features computed live."""

    batch_size: int = Field(description="images of the batch that memory and throughput belong to")
    latency: float | None = Field(default=None, description="median seconds of one image alone")
    images_per_second: float | None = Field(default=None, description="at the batch size")
    memory: InferenceMemory | None = Field(default=None, description="the peak of one batch")
    error: str | None = Field(default=None, description="why the figures are missing, where they are")


class Result(_Part):
    """All that is kept of a run."""

    model_config = ConfigDict(extra="forbid", validate_by_name=True)

    schema_: int = Field(default=SCHEMA, serialization_alias="schema", validation_alias="schema")
    run_id: str
    status: Status
    config: RunConfig
    best_epoch: int | None = None
    metrics: dict[str, dict[str, Any]] = Field(default_factory=dict)
    curve: list[dict[str, Any]] = Field(default_factory=list)
    parameters: Parameters | None = None
    scores: Scores = Field(default_factory=Scores)
    intervals: dict[str, Any] = Field(default_factory=dict)
    memory: Memory | None = None
    inference: Inference | None = None
    timing: dict[str, float] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    preprocessing: dict[str, str] = Field(default_factory=dict)
    digests: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    artifacts: dict[str, str] = Field(default_factory=dict)
    error: dict[str, str] | None = None

    def document(self) -> dict[str, Any]:
        """The result as plain values, as it is stored."""
        return self.model_dump(mode="json", by_alias=True)


def write_result(folder: Path, result: Result) -> None:
    """Write ``result.json`` into a folder as a whole."""
    with write_atomically(folder / FILE) as temporary:
        temporary.write_text(json.dumps(result.document(), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_result(folder: Path) -> Result:
    """Read a stored result.

    Raises:
        InputError: When there is none, or it is newer than this petlbench or damaged.
    """
    file = folder / FILE
    try:
        document = json.loads(file.read_bytes())
        if (schema := document.get("schema", 0)) <= SCHEMA:
            return Result.model_validate(document)
    except FileNotFoundError as error:
        raise InputError(
            f"there is no result in {folder}",
            hint="give a run id together with its --output, or the run's folder",
            kind="unknown_run",
        ) from error
    except (ValueError, ValidationError) as error:
        raise InputError(
            f"{file} is damaged: {str(error).splitlines()[0]}", hint="remove it and run again", kind="bad_result"
        ) from error
    message = f"{file} was written by a newer petlbench (schema {schema})"
    raise InputError(message, hint="update petlbench", kind="bad_result")


def iter_results(output: Path, method: str = "*") -> Iterator[Result]:
    """Yield every readable result below an output folder, in the order of their names."""
    for file in sorted(output.glob(f"{method}-*/{FILE}")):
        try:
            yield read_result(file.parent)
        except InputError:
            continue


@dataclass(frozen=True)
class PhaseMemory:
    """Peak memory of one phase in bytes; ``None`` is "not available here", never zero.

    Attributes:
        allocated: The most bytes in tensors at one time. On CUDA the allocator's own figure for the whole phase;
            elsewhere counted tensor by tensor, in those parts of the phase that named what lives already.
        reserved: The most bytes that the CUDA caching allocator held from the driver.
        process: The most bytes that the driver said this process holds on the device, context included. On CUDA NVML
            is asked all through the phase; on MPS Metal is asked at its start and its end.
        resident: Peak resident set of the process in host memory: the phase's own where the kernel lets a process
            reset it, else since the process started.
        parts: The peak of ``allocated`` by role, where live tensors were counted; sums to ``allocated``.
    """

    allocated: int | None = None
    reserved: int | None = None
    process: int | None = None
    resident: int | None = None
    parts: dict[str, int] | None = None
