"""What a study consists of, in ``studies/<name>.json``: which runs were wanted, and what has become of each."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.results.planned import STUDY_SCHEMA, read_study

__all__ = ["check_study_name", "record_runs", "study_file"]

_CELL = ("method", "dataset", "seed")


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
    return output / "studies" / f"{check_study_name(name)}.json"


def record_runs(
    output: Path,
    name: str,
    runs: Sequence[Mapping[str, Any]],
    *,
    kind: Literal["bench", "sweep"] = "bench",
    more: Mapping[str, Any] | None = None,
) -> list[Mapping[str, Any]]:
    """Write down the runs of a study, and return those that had another config for the same method, dataset and seed.

    These are replaced; all others that the study has stay. Several processes may do so at once.

    Args:
        output: Folder of all results.
        name: The study.
        runs: The runs: ``method``, ``dataset`` as it was asked for, ``seed``, ``run_id`` (None for a combination that
            cannot be had), ``status`` (None where there is no result yet), ``error`` (why it did not finish).
        kind: What the study is, where it is new.
        more: Further entries of the document.
    """
    file = study_file(output, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        new_study: dict[str, Any] = {"schema": STUDY_SCHEMA, "name": name, "kind": kind, "created": created, "runs": []}
        document = read_study(file) if file.exists() else new_study | {f"{axis}s": [] for axis in _CELL}
        before, new = ({tuple(run[name] for name in _CELL): run for run in each} for each in (document["runs"], runs))
        shared = [(old, new[cell]) for cell, old in before.items() if cell in new]
        replaced = [old for old, new in shared if old["run_id"] is not None and new["run_id"] != old["run_id"]]
        merged = list((before | new).values())
        for axis in _CELL:  # what is new goes behind what was there
            document[f"{axis}s"] = list(dict.fromkeys([*document[f"{axis}s"], *(run[axis] for run in merged)]))
        document |= {"runs": merged, **(more or {})}
        with write_atomically(file) as temporary:
            temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return replaced
