"""``petlbench predict``: class probabilities from a finished run."""

from __future__ import annotations

from pathlib import Path

import click

from petlbench.cli.options import catalog_option, json_option, output_option
from petlbench.cli.output import percent, print_json, print_table

__all__ = ["command"]


@click.command("predict", epilog="Example: petlbench predict fpt-lesions-s0-0123456789ab eye.jpg")
@click.argument("run")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option
@catalog_option
@json_option
def command(run: str, images: tuple[Path, ...], output: Path, catalog: tuple[Path, ...], json: bool) -> None:
    """Print class probabilities of images, from what a run has learned.

    RUN is a run id, or the folder of a finished run; IMAGES are image files.
    """
    from petlbench.catalog import Catalog
    from petlbench.prediction import predict_images

    folder = Path(run) if Path(run).is_dir() else output / run
    predictions = predict_images(folder, images, Catalog(catalog))
    if json:
        print_json({"run_id": predictions.run_id, "classes": predictions.classes, "predictions": predictions.rows()})
        return
    rows = [
        [row["image"], row["class"], *(percent(value, 1) for value in row["probabilities"])]
        for row in predictions.rows()
    ]
    columns = ["image", "class", *(f"{name}, %>" for name in predictions.classes)]
    print_table(f"{predictions.run_id}: class probabilities", columns, rows, caption="Not a diagnosis.")
