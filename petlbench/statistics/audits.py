"""A stored audit of a dataset: its trivial baselines, and whether it is marked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from petlbench.audit.baselines import Baseline
from petlbench.errors import InputError

__all__ = ["StoredAudit", "read_audit"]


@dataclass(frozen=True)
class StoredAudit:
    """What a report needs of an audit.

    Args:
        dataset: The dataset's name.
        shortcut: Whether the class can be told without a look at the picture.
        easy: Whether plain pixels of 32x32 tell the class.
        baselines: The trivial classifiers, each cross-validated over all images.
    """

    dataset: str
    shortcut: bool
    easy: bool
    baselines: tuple[Baseline, ...]


def read_audit(file: Path) -> StoredAudit:
    """Read what ``petlbench data audit NAME --json`` printed into a file.

    Args:
        file: The JSON document.

    Raises:
        InputError: When there is no such file, or it is no audit.
    """
    remedy = "petlbench data audit NAME --json > FILE writes it"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        verdicts = document["verdicts"]
        baselines = tuple(Baseline(**one) for one in document["baselines"])
        return StoredAudit(document["dataset"], "shortcut" in verdicts, "easy" in verdicts, baselines)
    except OSError as error:
        raise InputError(f"the audit {file} cannot be read: {error.strerror}", hint=remedy, kind="bad_audit") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no audit of a dataset", hint=remedy, kind="bad_audit") from error
