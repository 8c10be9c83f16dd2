"""``petlbench predict``: class probabilities from a finished run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from petlbench.cli.options import PLACE, catalog_option, download_option, json_option, output_option
from petlbench.cli.output import print_json, print_table
from petlbench.core.units import number, percent

# More rows than this are no table that a person reads.
_SHOWN = 50


@click.command("predict", epilog="Example: petlbench predict fpt-lesions-s0-0123456789ab eyes/ --save eyes.csv")
@click.argument("run")
@click.argument("images", nargs=-1, required=True, type=PLACE)
@click.option("--batch-size", type=click.IntRange(1, 65_536), default=16, show_default=True, help="Images at once.")
@click.option("--image-column", default="image", show_default=True, help="Column of a CSV file that names the images.")
@click.option("--save", type=PLACE, metavar="FILE", help="Write a table to FILE: .csv or .parquet.")
@click.option("--merge", is_flag=True, help="Fold what was learned into the backbone first.")
@download_option
@output_option
@catalog_option
@json_option
def command(run: str, images: tuple[Path, ...], save: Path | None, output: Path, json: bool, **options: Any) -> None:
    """Print class probabilities of images, from what a run has learned.

    RUN is a run's id, the beginning of one, or the folder of a finished run. IMAGES are image files, folders (all
    images below them) and CSV files with a column of paths, relative to the CSV file.
    """
    import petlbench as pb
    from petlbench.run.predict import check_table, write_table

    if save is not None:
        check_table(save)
    predictions = pb.predict(run, images, output, progress=True, **options)
    if save is not None:
        write_table(save, predictions)
    if json:
        print_json(
            {
                "run_id": predictions.run_id,
                "classes": predictions.classes,
                "temperature": predictions.temperature,
                "predictions": predictions.rows(),
                "saved": str(save) if save is not None else None,
            }
        )
        return
    answer = predictions.answer
    shown = partial(percent, digits=1) if answer.fractions else partial(number, digits=4)
    rows = [
        [row["image"], str(row[answer.key]), *(shown(value) for value in row[answer.values])]
        for row in predictions.rows()
    ]
    more = len(rows) - _SHOWN
    notes = [f"{more} more images; --save FILE and --json give them all."] if more > 0 and save is None else []
    if predictions.temperature != 1:
        notes.append(f"Calibrated: logits are divided by the run's temperature, {predictions.temperature:.3g}.")
    notes += [f"All {len(rows)} images are in {save}."] if save is not None else []
    unit = ", %" if answer.fractions else ""
    columns = ["image", answer.key, *(f"{name}{unit}>" for name in predictions.classes)]
    caption = " ".join([*notes, "Not a diagnosis."])
    print_table(f"{predictions.run_id}: {answer.key} and {answer.values}", columns, rows[:_SHOWN], caption=caption)
