"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path

import click

from petlbench.cli.sizes import SIZE

__all__ = [
    "CACHE_SIZE_VARIABLE",
    "cache_dir_option",
    "cache_images_option",
    "cache_size_option",
    "catalog_option",
    "data_root_option",
    "json_option",
    "output_option",
    "setting_option",
]

CACHE_SIZE_VARIABLE = "PETLBENCH_CACHE_SIZE"

_FOLDER = click.Path(path_type=Path)


def _default_cache_dir() -> Path:
    from platformdirs import user_cache_path

    named = os.environ.get("PETLBENCH_CACHE")
    return Path(named) if named else user_cache_path("petlbench")


catalog_option = click.option(
    "--catalog",
    type=_FOLDER,
    multiple=True,
    metavar="DIR",
    help="Folder with your own methods, datasets, sweeps and reports; may be given several times.",
)
cache_dir_option = click.option(
    "--cache-dir",
    type=_FOLDER,
    default=_default_cache_dir,
    metavar="DIR",
    help="Folder of preloaded features and stored images, which runs share.  "
    "[default: $PETLBENCH_CACHE or the user's cache folder]",
)
cache_images_option = click.option(
    "--cache-images",
    type=click.Choice(["ram", "disk", "none"]),
    default="ram",
    show_default=True,
    help="Where resized images are kept: in up to a quarter of the free memory, in --cache-dir, or nowhere.",
)
cache_size_option = click.option(
    "--cache-size",
    type=SIZE,
    envvar=CACHE_SIZE_VARIABLE,
    metavar="SIZE",
    help="Largest size of that folder, such as 50GB; what was not used for longest goes first.  "
    f"[default: ${CACHE_SIZE_VARIABLE} or no bound]",
)
data_root_option = click.option(
    "--data-root",
    type=_FOLDER,
    default=lambda: Path(os.environ.get("PETLBENCH_DATA", "data")),
    metavar="DIR",
    help="Folder below which datasets lie.  [default: $PETLBENCH_DATA or ./data]",
)
json_option = click.option("--json", is_flag=True, help="One JSON document on standard output.")
output_option = click.option(
    "--output", type=_FOLDER, default=Path("results"), show_default=True, metavar="DIR", help="Folder of the results."
)
setting_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="GROUP.KEY=VALUE",
    help="Any setting of the groups method, dataset and training; may be given several times.",
)
