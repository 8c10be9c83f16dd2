"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["CatalogOption", "DataRootOption", "JsonOption", "OutputOption", "data_root"]

CatalogOption = Annotated[
    list[Path] | None,
    typer.Option("--catalog", help="Folder with your own methods, datasets, sweeps and reports.", metavar="DIR"),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option(
        "--data-root", help="Folder below which datasets lie.  [default: $PETLBENCH_DATA or ./data]", metavar="DIR"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
OutputOption = Annotated[Path, typer.Option("--output", help="Folder of the results.", metavar="DIR")]


def data_root(given: Path | None) -> Path:
    """The folder of the datasets: as given, else from ``PETLBENCH_DATA``, else ``./data``."""
    return given if given is not None else Path(os.environ.get("PETLBENCH_DATA", "data"))
