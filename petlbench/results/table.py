"""Stored results, read as plain values: thousands of them in seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic_core import from_json  # three times as fast as json

from petlbench.core.errors import InputError
from petlbench.results.result import FILE, SCHEMA, read_result

__all__ = ["ALIKE", "GROUPS", "PlannedRuns", "Stored", "read_reads", "read_results", "read_studies", "read_trials"]

ALIKE = (
    "backbone",
    "weights",
    "image_size",
    "normalize",
    "device",
    "precision",
    "attention_kernel",
    "checkpointing",
    "training.epochs",
    "training.batch_size",
    "training.accumulate",
    "training.optimizer",
    "training.augment",
)
"""What must agree in all rows of a table."""

GROUPS = {"training": "training", "method": "method_settings", "dataset": "dataset_settings"}
"""Groups of a config by the names that users give them."""

_REASONS = {"oom": "out of memory", "already_running": "being worked on", None: "not run"}


@dataclass(frozen=True)
class Stored:
    """One result.

    Args:
        document: What ``result.json`` holds.
        folder: Where it lies; None where only a tracker has it.
    """

    document: Mapping[str, Any]
    folder: Path | None = None

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return str(self.document["run_id"])

    @property
    def status(self) -> str:
        """How the run ended."""
        return str(self.document["status"])

    @property
    def finished(self) -> bool:
        """Whether it ended well."""
        return self.status == "finished"

    @property
    def config(self) -> Mapping[str, Any]:
        """The run's description."""
        found: Mapping[str, Any] = self.document["config"]
        return found

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.config["method"])

    @cached_property
    def dataset(self) -> str:
        """Short name of the dataset: the catalogue's, or that of the folder or file."""
        return short_name(str(self.config["dataset"]))

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["seed"])

    @property
    def split(self) -> str:
        """The split with its seed where it is drawn."""
        split = str(self.config["split"])
        return split if split == "official" else f"{split}@{self.config['split_seed']}"

    def value(self, key: str) -> Any:
        """What the config has under a key, such as ``precision`` or ``training.lr``; None for nothing."""
        group, dot, name = key.partition(".")
        if not dot:
            return self.config.get(key)
        return self.config.get(GROUPS.get(group, ""), {}).get(name)

    @cached_property
    def alike(self) -> tuple[Any, ...]:
        """The values of `ALIKE`."""
        return tuple(self.value(key) for key in ALIKE)

    def score(self, metric: str, split: str = "test") -> float | None:
        """A score, as a fraction; None where there is none."""
        value = self.document["metrics"].get(split, {}).get(metric)
        return None if value is None else float(value)

    def memory(self, figure: str, phase: str | None = None) -> int | None:
        """A figure of memory in bytes: of the training step, or of another phase."""
        memory = self.document.get("memory") or {}
        found = memory.get("phases", {}).get(phase, {}) if phase is not None else memory
        value = found.get(figure)
        return None if value is None else int(value)

    def seconds(self, name: str) -> float:
        """Seconds of a phase; 0 where it has none."""
        return float(self.document["timing"].get(name) or 0.0)


@dataclass(frozen=True)
class PlannedRuns:
    """What studies asked for, and what became of it where no result says so.

    Args:
        runs: Ids of all their runs.
        reasons: Why there is no result, by method, dataset and seed.
        methods: Methods in the order in which they were asked for.
        datasets: Datasets in that order.
        seeds: Number of seeds that were asked for; None where no study is known.
        sweeps: The section ``sweep`` of the studies that have one.
    """

    runs: frozenset[str] = frozenset()
    reasons: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    seeds: int | None = None
    sweeps: tuple[Mapping[str, Any], ...] = ()


def short_name(dataset: str) -> str:
    """A dataset's name without its folders and ending."""
    return dataset.rstrip("/").rpartition("/")[2].partition(".")[0] or dataset


def read_results(output: Path) -> list[Stored]:
    """Read every result right below a folder.

    Args:
        output: Folder of all results.

    Raises:
        InputError: When there is no such folder, or one of them is newer than this petlbench.
    """
    if not output.is_dir():
        raise InputError(
            f"--results {output}: there is no such folder",
            hint="give the folder that --output of run and bench named",
            kind="no_results",
        )
    return list(_read(output))


def read_trials(output: Path) -> list[Stored]:
    """Read the trials of all searches that wrote to a folder; none where there are none."""
    return list(_read(output / "trials")) if (output / "trials").is_dir() else []


def read_reads(output: Path) -> list[dict[str, Any]]:
    """Read the log of every reading of a test split: dataset, digest of the split, run id and time."""
    file = output / "test_reads.jsonl"
    if not file.is_file():
        return []
    return [read for line in file.read_text(encoding="utf-8").splitlines() if (read := _line(line)) is not None]


def read_studies(output: Path, name: str | None) -> PlannedRuns:
    """Read what studies asked for.

    Args:
        output: Folder of all results.
        name: Name of one study, which takes in those that begin with it and a dot; None for all.

    Raises:
        InputError: When there is no such study.
    """
    files = sorted((output / "studies").glob("*.json"))
    chosen = [file for file in files if name is None or file.stem == name or file.stem.startswith(f"{name}.")]
    if name is not None and not chosen:
        known = ", ".join(file.stem for file in files) or "none"
        raise InputError(
            f"--study {name}: {output / 'studies'} has no such study", hint=f"known: {known}", kind="unknown_study"
        )
    studies = [_json(file) for file in chosen]
    runs = [(run, study) for study in studies for run in study.get("runs", [])]
    return PlannedRuns(
        frozenset(run["run_id"] for run, _ in runs if run.get("run_id")),
        {(run["method"], short_name(run["dataset"]), int(run["seed"])): _reason(run) for run, _ in runs},
        tuple(dict.fromkeys(method for study in studies for method in study.get("methods", []))),
        tuple(dict.fromkeys(short_name(one) for study in studies for one in study.get("datasets", []))),
        max((len(study.get("seeds", [])) for study in studies), default=None) or None,
        tuple({"study": study["name"], **study["sweep"]} for study in studies if study.get("sweep")),
    )


def reason_of(status: str | None, message: str = "") -> str:
    """Why there is no figure, in words.

    Args:
        status: A result's status; None for no result.
        message: What is said of it beside that.
    """
    word = _REASONS.get(status, str(status))
    return f"{word}: {message}" if message and status is not None else word


def _reason(run: Mapping[str, Any]) -> str:
    error = run.get("error")
    return reason_of(run.get("status"), error.get("message", "") if isinstance(error, Mapping) else str(error or ""))


def _read(folder: Path) -> Iterator[Stored]:
    for place in sorted(place for place in folder.iterdir() if not place.name.startswith(".")):
        try:
            document = from_json((place / FILE).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except ValueError as error:
            raise InputError(
                f"{place / FILE} is damaged: {error}", hint="remove it and run again", kind="bad_result"
            ) from error
        if document.get("schema") != SCHEMA:
            document = read_result(place).document()
        yield Stored(document, place)


def _json(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(
            f"{file} is damaged: {error}", hint="run the study's command again: it writes it anew", kind="bad_study"
        ) from error
    return found


def _line(line: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return None  # the last line of a log that was cut off
    return found
