"""``petlbench export``: a finished run as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from petlbench.cli.options import PLACE, catalog_option, download_option, json_option, output_option
from petlbench.cli.output import print_json, print_table
from petlbench.core.units import mebibytes

_MEANING = {
    "model.safetensors": "state dict that timm.create_model loads",
    "model.onnx": "the whole model, normalisation included",
    "model.onnx.data": "its tensors; keep it beside model.onnx",
    "README.md": "model card: data, scores with intervals, limits",
    "preprocessing.json": "labels, and how images are prepared",
}


@click.command("export", epilog="Example: petlbench export lora-lesions-s0-0123456789ab --to lesion_model")
@click.argument("run")
@output_option
@click.option("--to", type=PLACE, metavar="FOLDER", help="Folder to write.  [default: export, in the run's]")
@click.option(
    "--format",
    type=click.Choice(["all", "onnx", "timm"]),
    default="all",
    show_default=True,
    help="What to write; all leaves timm out where the method cannot be folded into the backbone.",
)
@download_option
@catalog_option
@json_option
def command(run: str, output: Path, json: bool, **options: Any) -> None:
    """Write a finished run as files that need no petlbench: for ONNX runtimes and for timm.

    RUN is a run's id, the beginning of one, or the folder of a finished run. What was learned is folded into the
    backbone where that can be. The files are run once and compared with the run's own module before they are put in
    place.
    """
    import petlbench as pb

    exported = pb.export(run, output, progress=True, **options)
    if json:
        print_json(exported.document())
        return
    rows = [[name, mebibytes(size), _MEANING[name]] for name, size in exported.files.items()]
    merged = "folded into the backbone" if exported.merged else "beside the backbone"
    calibrated = ""
    if exported.temperature != 1:
        calibrated = f"Calibrated: logits are divided by the run's temperature, {exported.temperature:.3g}. "
    caption = (
        f"In {exported.folder}. What was learned is {merged}. Probabilities differ from the run's own by at most "
        f"{exported.max_difference:.1g}, on random images. {calibrated}Not a diagnosis."
    )
    print_table(f"{exported.run_id}: export", ["file", "MiB>", "what it is"], rows, caption=caption)
