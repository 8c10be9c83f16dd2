"""A report as JSON: all of its tables, figures, notes and runs as plain values."""

from __future__ import annotations

import json

from petlbench.report.document import Document
from petlbench.report.registry import ReportFormat

__all__ = ["JSON"]


def render(document: Document) -> str:
    """One JSON document."""
    return json.dumps(document.plain(), indent=1, allow_nan=False) + "\n"


JSON = ReportFormat(name="json", title="JSON", suffix=".json", render=render)
