"""``petlbench memory``: what methods would take, predicted without the device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petlbench.cli.completion import names_of
from petlbench.cli.options import (
    PLACE,
    SIZE,
    catalog_option,
    data_root_option,
    json_option,
    methods_option,
    parse_assignments,
    parse_list,
    setting_option,
)
from petlbench.cli.output import Target, check_file, print_json, print_report_table, say
from petlbench.core.catalog import Catalog
from petlbench.core.plotting import FORMATS

if TYPE_CHECKING:
    from petlbench.report.kinds.memory import Forecast

# With so few methods the answer to what other settings would save costs little.
_FEW = 4


@click.command("memory", epilog="Example: petlbench memory --method fpt,lora --image-size 512 --budget 8GiB")
@methods_option(required=True)
@click.option("--backbone", help="timm name.  [default: the papers' ViT-B/16]")
@click.option(
    "--dataset",
    help="Name, folder, CSV or card: gives classes and image size; images need not be there.",
    shell_complete=names_of("dataset"),
)
@click.option(
    "--classes", type=click.IntRange(2, 100_000), help="Instead of --dataset.  [default: 7, as in the papers]"
)
@click.option("--image-size", type=int, help="Pixels.  [default: the card's, else the backbone's]")
@click.option("--batch-size", type=int, help="Images a step.  [default: 16]")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="[default: fp32]")
@click.option("--attention-kernel", type=click.Choice(["auto", "eager", "fused"]), help="[default: auto]")
@click.option("--optimizer", type=click.Choice(["adamw", "sgd"]), help="sgd: momentum 0.9.  [default: adamw]")
@click.option("--checkpointing", is_flag=True, help="Blocks are computed again in backward.")
@click.option("--accumulate", type=int, help="Micro-batches of a batch, which go through one by one.  [default: 1]")
@click.option(
    "--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True, help="It need not be here."
)
@click.option(
    "--preload/--no-preload", default=None, help="Features are computed once.  [default: wherever the method can]"
)
@click.option(
    "--cache-form",
    type=click.Choice(["keys_values", "tokens"]),
    help="Of preloaded important tokens.  [default: keys_values]",
)
@setting_option
@click.option(
    "--vary",
    metavar="NAME=V1,V2,...",
    help="One figure for each value of image-size, batch-size, precision, attention-kernel, backbone, optimizer, "
    "accumulate or method.KEY.",
)
@click.option("--budget", type=SIZE, metavar="SIZE", help="Say what fits, and up to which batch size; such as 8GiB.")
@click.option("--compare", type=click.Choice(["papers"]), help="Predict the papers' tables, too.")
@click.option(
    "--context-mib",
    type=click.IntRange(0, 1_000_000),
    metavar="N",
    help="MiB of the CUDA context, the process's memory beside torch's.  [default: 480]",
)
@click.option("--inference", is_flag=True, help="Predict the peak of predicting one batch, too.")
@click.option(
    "--savings/--no-savings",
    default=None,
    help="What other settings would save.  [default: with up to four methods, without --vary and --budget]",
)
@click.option("--figure", type=PLACE, metavar="FILE", help="Draw to FILE: .png, .pdf or .svg.")
@click.option("--format", "formats", metavar="NAMES", help="html, csv, latex, md, …, as of a report.")
@click.option("--output", type=PLACE, metavar="FILE|DIR", help="Where the files of --format go.")
@data_root_option
@catalog_option
@json_option
def command(
    methods: str,
    settings: tuple[str, ...],
    context_mib: int | None,
    figure: Path | None,
    formats: str | None,
    output: Path | None,
    json: bool,
    **options: Any,
) -> int:
    """Predict the peak memory of a training step, method by method: in seconds, and without images, weights or GPU.

    allocated: what tensors take. reserved: what torch takes from the driver. process: what nvidia-smi would show.
    """
    import petlbench as pb
    from petlbench.core.environment import usable_cores

    target = Target.parse(formats, output, Catalog(options["catalog"]))
    if figure is not None:
        check_file(figure, "--figure", FORMATS)
    names = parse_list(methods, "--method", str)
    if options["savings"] is None:
        options["savings"] = names != ["all"] and len(names) <= _FEW and not (options["vary"] or options["budget"])
    options["compare"] = options["compare"] is not None
    assignments = parse_assignments(settings, ("method", "dataset", "training"))
    forecast = pb.forecast_memory(
        names,
        num_classes=options.pop("classes"),
        context=None if context_mib is None else context_mib * 2**20,
        method_settings=assignments["method"],
        dataset_settings=assignments["dataset"],
        training=assignments["training"],
        workers=usable_cores(),
        progress=True,
        **options,
    )
    _deliver(forecast, target, figure, json)
    return 1 if any(row.failed for row in forecast.rows) else 0


def _deliver(forecast: Forecast, target: Target, figure: Path | None, as_json: bool) -> None:
    from petlbench.report.kinds.memory import memory_document, memory_figure

    if figure is not None:
        from petlbench.report.render.figure_files import draw

        draw(memory_figure(forecast), figure)
    report = memory_document(forecast)
    files = target.write(report)
    text = target.text(report)
    if as_json:
        rows = [row.document(forecast.extras) for row in forecast.rows]
        document: dict[str, Any] = {"rows": rows, "config": forecast.config}
        if forecast.comparison is not None:
            papers = forecast.comparison.document()
            document |= {"comparison": papers["comparison"], "fits_of_constants": papers["constants"]}
        print_json(document)
    elif text is not None:
        say(text, end="")
    else:
        for table in report.tables:
            print_report_table(table)
        if files:
            say(f"written: {', '.join(map(str, files))}")
