"""What a finished run was read on afterwards: one file a test set, beside the run's result, which stays as it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.core.text import printable
from petlbench.core.user_files import read_bytes
from petlbench.results.result import Calibration, MetricScores

FOLDER = "evaluations"
_logger = logging.getLogger("petlbench")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class CorruptionScores(_Part):
    """Balanced errors under one corruption."""

    name: str
    by_severity: list[dict[str, float | None]] = Field(
        description="from 1 to 5: balanced_error with low and high, and increase: over that of the clean images"
    )
    balanced_error: float | None = Field(description="mean over the severities")
    increase: float | None = Field(description="of that over the clean images")
    be: float | None = Field(description="over the reference's")
    rbe: float | None = Field(description="increase over the reference's increase")


class Robustness(_Part):
    """Balanced errors of corrupted images; the relative ones are fractions of those of the reference."""

    package: str
    dataset: str = Field(description="of MedMNIST, whose corruptions these are")
    image_size: int = Field(description="at which images were corrupted, in pixels")
    clean: dict[str, float | None] = Field(description="balanced_error of images of that size without corruption")
    reference: str = Field(description="whose errors the relative ones are divided by; empty for nobody's")
    corruptions: list[CorruptionScores]
    balanced_error: float | None = Field(description="mean over the corruptions")
    be: float | None
    rbe: float | None
    versions: dict[str, str]


class Evaluation(_Part):
    """One more reading of a test set by a finished run."""

    name: str = Field(description="of its files")
    run_id: str
    dataset: str = Field(description="as a config names it")
    settings: dict[str, Any] = Field(description="the dataset's own, as far as they were given")
    is_own: bool = Field(description="whether it is the test side of the dataset that the run was trained on")
    time: str
    metrics: MetricScores
    intervals: dict[str, dict[str, Any] | None]
    calibration: Calibration | None = Field(description="the run's, with its figures on this test set")
    robustness: Robustness | None = None
    data: dict[str, Any]
    digests: dict[str, str]
    environment: dict[str, Any]
    artifacts: dict[str, str]

    def document(self) -> dict[str, Any]:
        """The evaluation as plain values, as it is stored."""
        return self.model_dump(mode="json")


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write an evaluation into the folder of its run, as a whole; its other files are there already."""
    with write_atomically(folder / FOLDER / f"{evaluation.name}.json") as temporary:
        temporary.write_text(json.dumps(evaluation.document(), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_evaluations(folder: Path) -> list[Evaluation]:
    """The evaluations of a run in the order of their names, of which nothing is believed unchecked.

    A damaged one is passed over, which a warning says.
    """
    evaluations = []
    for file in sorted((folder / FOLDER).glob("*.json")):
        try:
            evaluation = Evaluation.model_validate_json(read_bytes(file, what="evaluation"), strict=True)
        except (InputError, ValidationError) as error:
            reason = error.message if isinstance(error, InputError) else _first(error)
            _logger.warning("passed over: %s is damaged: %s", file, reason)
            continue
        if (evaluation.name, evaluation.run_id) == (file.stem, folder.absolute().name):
            evaluations.append(evaluation)
        else:
            _logger.warning("passed over: %s is the evaluation of another run, or under another name", file)
    return evaluations


def _first(error: ValidationError) -> str:
    fault: Mapping[str, Any] = error.errors(include_url=False)[0]
    return printable(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}")
