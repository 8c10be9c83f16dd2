"""What a run tells those who watch it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Progress:
    """Told what a run is doing; this one keeps silent, the command line's draws bars."""

    def phase(self, name: str, total: int) -> None:
        """A phase of so many images or steps begins."""

    def advance(self, count: int = 1) -> None:
        """So many images or steps of the phase are done."""

    def epoch(self, entry: Mapping[str, Any], score: str) -> None:
        """An epoch is done and its checkpoint written; ``entry`` is its point of the curve, ``score`` its words."""

    def say(self, text: str) -> None:
        """Something that the user should know."""
