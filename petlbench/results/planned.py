"""What studies plan to run, as their files say, and the log of test reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petlbench.core.errors import InputError

__all__ = ["STUDY_SCHEMA", "PlannedRuns", "planned_runs", "read_reads", "read_studies", "read_study", "reason_of"]

STUDY_SCHEMA = 1

_REASONS = {"oom": "out of memory", "already_running": "being worked on", None: "not run"}


@dataclass(frozen=True)
class PlannedRuns:
    """The runs that studies consist of, and what became of them where no result says so.

    Args:
        runs: Ids of all runs.
        reasons: Why there is no result, by method, dataset and seed.
        methods: Methods in the order of the studies.
        datasets: Datasets in that order.
        seeds: Number of seeds; None where no study is known.
    """

    runs: frozenset[str] = frozenset()
    reasons: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    seeds: int | None = None


def read_studies(output: Path, name: str | None) -> list[dict[str, Any]]:
    """Read the files of studies.

    Args:
        output: Folder of all results.
        name: Name of one study, which takes in those that begin with it and a dot; None for all.

    Raises:
        InputError: When there is no such study, or a file is damaged.
    """
    files = sorted((output / "studies").glob("*.json"))
    matching = [file for file in files if name is None or file.stem == name or file.stem.startswith(f"{name}.")]
    if name is not None and not matching:
        names = ", ".join(file.stem for file in files) or "none"
        raise InputError(
            f"--study {name}: {output / 'studies'} has no such study", hint=f"known: {names}", kind="unknown_study"
        )
    return [read_study(file) for file in matching]


def read_study(file: Path) -> dict[str, Any]:
    """Return the document of a study: ``name``, ``kind``, ``created``, ``methods``, ``datasets``, ``seeds``, ``runs``.

    Raises:
        InputError: When it is damaged or newer than this petlbench.
    """
    try:
        document: dict[str, Any] = json.loads(file.read_bytes())
    except ValueError as error:
        hint = "remove it and give the command that made it again; no run is lost"
        raise InputError(f"{file} is damaged: {error}", hint=hint, kind="bad_study") from error
    if document.get("schema", 0) > STUDY_SCHEMA:
        raise InputError(f"{file} was written by a newer petlbench", hint="update petlbench", kind="bad_study")
    return document


def planned_runs(studies: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> PlannedRuns:
    """Sum up the files of studies."""
    runs = [run for study in studies for run in study.get("runs", [])]
    return PlannedRuns(
        frozenset(run["run_id"] for run in runs if run.get("run_id")),
        {(run["method"], names[run["dataset"]], int(run["seed"])): _reason(run) for run in runs},
        tuple(dict.fromkeys(method for study in studies for method in study.get("methods", []))),
        tuple(dict.fromkeys(names[dataset] for study in studies for dataset in study.get("datasets", []))),
        max((len(study.get("seeds", [])) for study in studies), default=None) or None,
    )


def read_reads(output: Path) -> list[dict[str, Any]]:
    """Read the log of every reading of a test split: dataset, digest of the split, run id and time."""
    file, reads = output / "test_reads.jsonl", []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        with suppress(ValueError):  # the last line of a log that was cut off
            reads.append(json.loads(line))
    return reads


def reason_of(status: str | None, message: str = "") -> str:
    """Why there is no figure, in words.

    Args:
        status: A result's status; None for no result.
        message: What is said of it beside that.
    """
    word = _REASONS.get(status, str(status))
    return f"{word}: {message}" if message and status is not None else word


def _reason(run: Mapping[str, Any]) -> str:
    error = run.get("error") or ""
    return reason_of(run.get("status"), error.get("message", "") if isinstance(error, Mapping) else str(error))
