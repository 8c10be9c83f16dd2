"""The result of a run: the versioned truth, of which every table and tracker is a view."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.core.text import printable
from petlbench.core.user_files import read_bytes

SCHEMA = 1
FILE = "result.json"

Status = Literal["finished", "failed", "oom", "interrupted", "pruned", "timeout", "unsupported"]


_NEWER = "newer_schema"
_LISTS = ("confusion_matrix", "support", "classes_absent", "unknown")


def _check_schema(schema: int) -> int:
    if schema > SCHEMA:
        raise PydanticCustomError(_NEWER, "was written by a newer petlbench (schema {schema})", {"schema": schema})
    return schema


def _check_scores(scores: dict[str, Any]) -> dict[str, Any]:
    for name, value in scores.items():
        if value is None or (name in _LISTS and isinstance(value, list)):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise PydanticCustomError("no_score", "{name} is no finite number", {"name": name})
    return scores


MetricScores = Annotated[dict[str, Any], AfterValidator(_check_scores)]
"""What ``metrics`` has of a split: finite numbers or None by name, and a few lists of counts."""


def _check_epoch(entry: dict[str, Any]) -> dict[str, Any]:
    if type(entry.get("epoch")) is not int:
        raise PydanticCustomError("no_epoch", "an entry of the curve has no epoch that is a number")
    return entry


def _like(shape: Any) -> AfterValidator:
    """Check what is read of a mapping, which is kept as it is, with whatever else it holds."""
    adapter = TypeAdapter(shape)

    def check(value: dict[str, Any]) -> dict[str, Any]:
        adapter.validate_python(value, strict=True)
        return value

    return AfterValidator(check)


class _Normalization(TypedDict):
    mean: Sequence[float]
    std: Sequence[float]
    origin: str


class _Scale(TypedDict):
    mean: float
    std: float


class Data(TypedDict, total=False):
    """What is read of ``data``."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    title: str
    synthetic: bool
    classes: Sequence[str]
    images: dict[str, int]
    images_by_class: dict[str, dict[str, int]]
    normalization: _Normalization
    task: str
    scale: _Scale | None
    features: dict[str, int | float]
    external: dict[str, Any]
    notes: Sequence[Any]


class Environment(TypedDict, total=False):
    """What is read of ``environment``."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    hardware: dict[str, Any]
    packages: dict[str, str | None]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Parameters(_Part):
    """Parameter counts; ``ratio`` is learnable over (adapted backbone + method + head), a fraction."""

    learnable: int
    total: int
    ratio: float
    ratio_published: float = Field(description="the same over the total as the method's own paper counts it")
    head: int | None = Field(default=None, description="of what is learnable: that of the classifier; None: not known")


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
    error: str | None = Field(default=None, description="why figures are missing, where they are")
    measured_by: str = Field(default="", description="the run that measured them, where it was another seed's")


class Calibration(_Part):
    """What makes the probabilities of a run true: its logits are divided by the temperature; those stored are not."""

    temperature: float = Field(gt=0, description="1 where none could be fitted")
    low: float | None = Field(default=None, description="lower bound of its interval of 95 %")
    high: float | None = Field(default=None, description="upper bound of its interval of 95 %")
    images: int = Field(description="of the validation split, on which it was fitted")
    loss: str = Field(description="what it minimises there")
    note: str = Field(default="", description="why none could be fitted")
    figures: dict[str, dict[str, dict[str, float]]] = Field(
        default_factory=dict,
        description="by split, before and after: ece and brier (means over classes, each against the rest), loss",
    )


class Origin(_Part):
    """Where a run's settings are from, beside what was asked of it and its method's defaults."""

    protocol: str = Field(default="", description="name of the protocol, or the path of its file; empty for none")
    deviations: list[str] = Field(default_factory=list, description="what the run has otherwise than the protocol")
    recipe: str = Field(default="", description="name of the recipe whose settings it takes; empty for none")
    sweep: str = Field(default="", description="name of the sweep whose winner's settings it takes; empty for none")

    @property
    def label(self) -> str:
        """The protocol, as one that tables may put in a line: with what deviates from it."""
        return f"{self.protocol} but {', '.join(self.deviations)}" if self.deviations else self.protocol


class Result(_Part):
    """All that is kept of a run."""

    model_config = ConfigDict(extra="forbid", validate_by_name=True, allow_inf_nan=False)

    schema_: Annotated[int, AfterValidator(_check_schema)] = Field(
        default=SCHEMA, serialization_alias="schema", validation_alias="schema", description="the version of the form"
    )
    run_id: str = Field(description="its name: method, dataset, seed and a hash of the config")
    status: Status = Field(description="how it ended")
    config: RunConfig = Field(description="every choice that can change a number")
    best_epoch: int | None = Field(default=None, description="the epoch that was kept, from 1")
    metrics: dict[str, MetricScores] = Field(default_factory=dict, description="by split: every score, and counts")
    curve: list[Annotated[dict[str, Any], AfterValidator(_check_epoch)]] = Field(
        default_factory=list, description="one object an epoch: loss, learning rate, validation scores"
    )
    parameters: Parameters | None = Field(default=None, description="how many there are, and are learned")
    scores: Scores = Field(default_factory=Scores, description="of the time when the run ended; tables weigh anew")
    intervals: dict[str, dict[str, dict[str, Any] | None]] = Field(
        default_factory=dict, description="by split and score: low, high, level, method, whether positives are few"
    )
    metrics_by_group: dict[str, MetricScores] = Field(
        default_factory=dict, description="as metrics, of groups (patients, lesions) where they are known"
    )
    intervals_by_group: dict[str, dict[str, dict[str, Any] | None]] = Field(
        default_factory=dict, description="as intervals, of groups"
    )
    memory: Memory | None = Field(default=None, description="peaks of training")
    inference: Inference | None = Field(default=None, description="what prediction costs")
    calibration: Calibration | None = Field(default=None, description="the temperature, where one was fitted")
    origin: Origin | None = Field(default=None, description="where settings are from: protocol, recipe, sweep")
    timing: dict[str, float] = Field(default_factory=dict, description="seconds by phase, and in total")
    data: Annotated[dict[str, Any], _like(Data)] = Field(
        default_factory=dict, description="title, classes, images by split and class, groups, normalisation, notes"
    )
    preprocessing: dict[str, str] = Field(default_factory=dict, description="how images are made, in words, by view")
    digests: dict[str, str | dict[str, str | None]] = Field(
        default_factory=dict, description="SHA-256 of data, split, weights, method, what was learned; versions"
    )
    environment: Annotated[dict[str, Any], _like(Environment)] = Field(
        default_factory=dict, description="versions, state of the code, machine"
    )
    artifacts: dict[str, str] = Field(default_factory=dict, description="the run's files, relative to this one")
    error: dict[str, str] | None = Field(default=None, description="kind, message and hint, where it failed")

    def document(self) -> dict[str, Any]:
        """The result as plain values, as it is stored."""
        return self.model_dump(mode="json", by_alias=True)


def write_result(folder: Path, result: Result) -> None:
    """Write ``result.json`` into a folder as a whole."""
    with write_atomically(folder / FILE) as temporary:
        temporary.write_text(json.dumps(result.document(), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_result(folder: Path) -> Result:
    """Read a stored result, of which nothing is believed unchecked: others may have written it.

    Raises:
        InputError: When there is none (kind ``unknown_run``), or it is damaged, newer than this petlbench, or another
            run's than the folder says (``bad_result``).
    """
    file = folder / FILE
    try:
        result = parse_result(read_bytes(file, what="result"), str(file))
    except InputError as error:
        if error.kind == "missing_file":
            raise InputError(
                f"there is no result in {folder}",
                hint="give a run id together with its --output, or the run's folder",
                kind="unknown_run",
            ) from error
        raise InputError(error.message, hint=error.hint or _hint(folder), kind="bad_result") from error
    if result.run_id != folder.name and result.run_id != folder.absolute().name:
        message = f"{file} is damaged: it is the result of '{printable(result.run_id)}', which its folder is not called"
        raise InputError(message, hint=_hint(folder), kind="bad_result")
    return result


def _hint(folder: Path) -> str:
    return f"remove it (petlbench results rm {printable(folder.name)}) and run again"


def parse_result(content: bytes, name: str) -> Result:
    """The result that a JSON document holds.

    Args:
        content: The document.
        name: What it is called, for the error.

    Raises:
        InputError: When it is damaged or newer than this petlbench (kind ``bad_result``).
    """
    try:
        return Result.model_validate_json(content, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        if fault["type"] == _NEWER:
            raise InputError(f"{name} {fault['msg']}", hint="update petlbench", kind="bad_result") from error
        place = ".".join(map(str, fault["loc"]))
        message = f"{name} is damaged: {printable(f'{place}: ' if place else '')}{printable(fault['msg'])}"
        raise InputError(message, kind="bad_result") from error


def iter_results(
    output: Path, method: str = "", on_damage: Callable[[InputError], None] = lambda error: None
) -> Iterator[Result]:
    """Yield the results right below an output folder, in the order of their names.

    Args:
        output: Folder of all results.
        method: The method whose results alone are read; empty for all.
        on_damage: Told of each result that is damaged and passed over.
    """
    for file in sorted(output.glob(f"{method}-*/{FILE}" if method else f"*/{FILE}")):
        if not file.parent.name.startswith("."):
            try:
                yield read_result(file.parent)
            except InputError as error:
                on_damage(error)


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
