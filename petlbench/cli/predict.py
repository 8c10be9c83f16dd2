"""``petlbench predict``: class probabilities from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from petlbench.cli.options import CatalogOption, JsonOption, OutputOption
from petlbench.cli.output import percent, print_json, print_table

__all__ = ["EPILOG", "predict"]

EPILOG = "Example: petlbench predict fpt-lesions-s0-0123456789ab eye.jpg"


def predict(
    run: Annotated[str, typer.Argument(help="Run id, or the folder of a finished run.", metavar="RUN")],
    images: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE...")],
    output: OutputOption = Path("results"),
    catalog: CatalogOption = None,
    json: JsonOption = False,
) -> None:
    """Print class probabilities of images, from what a run has learned."""
    from petlbench.catalog import Catalog
    from petlbench.prediction import predict_images

    folder = Path(run) if Path(run).is_dir() else output / run
    predictions = predict_images(folder, images, Catalog(catalog or ()))
    if json:
        print_json({"run_id": predictions.run_id, "classes": predictions.classes, "predictions": predictions.rows()})
        return
    rows = [
        [row["image"], row["class"], *(percent(value, 1) for value in row["probabilities"])]
        for row in predictions.rows()
    ]
    columns = ["image", "class", *(f"{name}, %>" for name in predictions.classes)]
    print_table(f"{predictions.run_id}: class probabilities", columns, rows, caption="Not a diagnosis.")
