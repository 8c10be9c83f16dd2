"""What a study consists of, in ``studies/<name>.json``: which runs were wanted, and what has become of each."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically

__all__ = ["SCHEMA", "RunEntry", "check_study_name", "read_study", "record_runs", "study_file"]

SCHEMA = 1

_FOLDER = "studies"
_AXES = ("methods", "datasets", "seeds")


@dataclass(frozen=True)
class RunEntry:
    """One run that a study wants.

    Args:
        method: Name of the method.
        dataset: The dataset as it was asked for.
        seed: Seed of the run.
        run_id: The run; None for a combination that cannot be had.
        status: Of its result, or ``unsupported``; None where there is no result yet.
        error: Why it did not finish.
    """

    method: str
    dataset: str
    seed: int
    run_id: str | None = None
    status: str | None = None
    error: str | None = None

    @property
    def cell(self) -> tuple[str, str, int]:
        """Its place in the study."""
        return self.method, self.dataset, self.seed


def check_study_name(name: str) -> str:
    """Return a study's name if it can name a file.

    Raises:
        InputError: When it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        hint = "use letters, digits, dots, dashes and underscores, such as --study table-2"
        raise InputError(f"--study '{name}' cannot name a study", hint=hint, kind="bad_study")
    return name


def study_file(output: Path, name: str) -> Path:
    """The file that says what a study consists of."""
    return output / _FOLDER / f"{check_study_name(name)}.json"


def read_study(output: Path, name: str) -> dict[str, Any]:
    """Return the document of a study: ``name``, ``kind``, ``created``, ``methods``, ``datasets``, ``seeds``, ``runs``.

    Raises:
        InputError: When there is none, or it is damaged or newer than this petlbench.
    """
    file = study_file(output, name)
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        hint = "known: " + (", ".join(sorted(path.stem for path in file.parent.glob("*.json"))) or "none")
        raise InputError(f"there is no study '{name}' in {output}", hint=hint, kind="unknown_study") from error
    except ValueError as error:
        hint = "remove it and give the command that made it again; no run is lost"
        raise InputError(f"{file} is damaged: {error}", hint=hint, kind="bad_study") from error
    if document.get("schema", 0) > SCHEMA:
        raise InputError(f"{file} was written by a newer petlbench", hint="update petlbench", kind="bad_study")
    return document


def record_runs(
    output: Path,
    name: str,
    runs: Sequence[RunEntry],
    *,
    kind: Literal["bench", "sweep"] = "bench",
    more: Mapping[str, Any] | None = None,
) -> list[RunEntry]:
    """Write down the runs of a study, and return those that had another config for the same method, dataset and seed.

    These are replaced; all others that the study has stay. Several processes may do so at once.

    Args:
        output: Folder of all results.
        name: The study.
        runs: The runs.
        kind: What the study is, where it is new.
        more: Further entries of the document.
    """
    file = study_file(output, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        document = read_study(output, name) if file.exists() else _new(name, kind)
        names = [field.name for field in fields(RunEntry)]
        entries = [RunEntry(**{name: run[name] for name in names if name in run}) for run in document["runs"]]
        before = {run.cell: run for run in entries}
        new = {run.cell: run for run in runs}
        shared = [(old, new[cell]) for cell, old in before.items() if cell in new]
        replaced = [old for old, new in shared if old.run_id is not None and new.run_id != old.run_id]
        merged = (before | new).values()
        for axis in _AXES:  # what is new goes behind what was there
            values = (getattr(run, axis.removesuffix("s")) for run in merged)
            document[axis] = list(dict.fromkeys([*document[axis], *values]))
        document |= {"runs": [asdict(run) for run in merged], **(more or {})}
        with write_atomically(file) as temporary:
            temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return replaced


def _new(name: str, kind: str) -> dict[str, Any]:
    created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    empty: dict[str, Any] = {axis: [] for axis in (*_AXES, "runs")}
    return {"schema": SCHEMA, "name": name, "kind": kind, "created": created, **empty}
