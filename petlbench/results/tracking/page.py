"""Files about a study, which a program of its own makes while MLflow's store is being written to."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from petlbench.core.environment import interpreter

_SECONDS = 300.0

_logger = logging.getLogger("petlbench")


class StudyPage:
    """The page and the figures of a study, in a folder that goes when the context ends.

    To make them takes seconds of CPU and what only reports import: another process does so.

    Args:
        study: The study's name.
        program: Module of this package whose ``main`` writes the files, and its arguments; the folder is added to
            them. Empty for no files.
    """

    def __init__(self, study: str, program: Sequence[str]) -> None:
        self._study = study
        self._program = program
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> StudyPage:
        """Start the program."""
        self._folder = TemporaryDirectory(prefix="petlbench-page-")
        if self._program:
            module, *arguments = self._program
            self._process = subprocess.Popen(
                [*interpreter(f"from {module} import main; main()"), *arguments, self._folder.name],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the program if it still works, and remove what it wrote."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._folder.cleanup()

    def files(self) -> Path | None:
        """The folder with all files, once the program has written them; None where there are none, with a warning."""
        if self._process is None:
            return None
        try:
            _, errors = self._process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            errors = f"it takes more than {_SECONDS:.0f} s"
        if self._process.returncode == 0:
            return Path(self._folder.name)
        reason = (errors.strip().splitlines() or ["it was ended"])[-1]
        _logger.warning("the page of study '%s' for MLflow could not be made: %s", self._study, reason)
        return None
