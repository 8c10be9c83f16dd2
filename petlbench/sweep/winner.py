"""What a search found, in ``sweeps/<sweep>/<method>-<dataset>.json``: written once, read by other commands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically

__all__ = ["iter_winners", "read_winner", "winner_file", "write_winner"]

_FOLDER = "sweeps"


def winner_file(output: Path, sweep: str, method: str, dataset: str) -> Path:
    """Where the winner of a search stands; the dataset has its short name, as in a run's id."""
    return output / _FOLDER / sweep / f"{method}-{dataset}.json"


def write_winner(output: Path, document: Mapping[str, Any]) -> Path:
    """Write the winner of a search, with ``sweep``, ``method`` and ``dataset`` in it, and return the file."""
    file = winner_file(output, document["sweep"], document["method"], document["dataset"])
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as temporary:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return file


def read_winner(output: Path, sweep: str, method: str, dataset: str) -> dict[str, Any]:
    """Return the document of a search's winner; ``best`` holds the settings: ``training`` and ``method``, by name.

    Raises:
        InputError: When the search has no winner yet, or its file is damaged.
    """
    file = winner_file(output, sweep, method, dataset)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(document["best"]["training"], dict) or not isinstance(document["best"]["method"], dict):
            raise ValueError("its settings are no tables")
    except FileNotFoundError as error:
        message = f"sweep {sweep} has no winner of {method} on {dataset} in {output}"
        hint = f"petlbench sweep {sweep} --method {method} --dataset {dataset} finds one"
        raise InputError(message, hint=hint, kind="unknown_winner") from error
    except (ValueError, KeyError, TypeError) as error:
        hint = "remove it and sweep again; no trial is lost"
        raise InputError(f"{file} is damaged: {error}", hint=hint, kind="bad_winner") from error
    return dict(document)


def iter_winners(output: Path, sweep: str) -> Iterator[dict[str, Any]]:
    """Yield the document of every winner of a sweep, in the order of their names."""
    for file in sorted((output / _FOLDER / sweep).glob("*.json")):
        try:
            yield dict(json.loads(file.read_text(encoding="utf-8")))
        except ValueError:
            continue
