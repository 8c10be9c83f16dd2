"""What studies plan to run, as their files say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petlbench.core.errors import InputError

__all__ = ["PlannedRuns", "planned_runs", "read_studies", "reason_of"]

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
    return [_study(file) for file in matching]


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


def reason_of(status: str | None, message: str = "") -> str:
    """Why there is no figure, in words."""
    word = _REASONS.get(status, str(status))
    return f"{word}: {message}" if message and status is not None else word


def _reason(run: Mapping[str, Any]) -> str:
    error = run.get("error") or ""
    return reason_of(run.get("status"), error.get("message", "") if isinstance(error, Mapping) else str(error))


def _study(file: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(
            f"{file} is damaged: {error}", hint="run the study's command again: it writes it anew", kind="bad_study"
        ) from error
    return document
