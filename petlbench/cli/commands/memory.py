"""``petlbench memory``: what methods would take, predicted without the device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petlbench.cli.options import SIZE, catalog_option, data_root_option, json_option, parse_assignments, setting_option
from petlbench.cli.output import Target, check_file, print_json, print_report_table
from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.plotting import FORMATS

if TYPE_CHECKING:
    from petlbench.core.request import Request
    from petlbench.report.kinds.memory import Forecast
    from petlbench.study.forecast.memory import Extras, Row
    from petlbench.study.grid import PlannedRun, Vary
    from tools.published_memory import Comparison

__all__ = ["command"]

_TRAINING = ("batch_size", "accumulate", "optimizer")
_CLASSES = 7
# With so few methods the answer to what other settings would save costs little.
_FEW = 4
# Fewer predictions than this are made sooner than workers are started.
_ALONE = 2


@click.command("memory", epilog="Example: petlbench memory --method fpt,lora --image-size 512 --budget 8GiB")
@click.option("--method", "methods", required=True, help="Names of methods, with commas between them, or all.")
@click.option("--backbone", help="timm name.  [default: the papers' ViT-B/16]")
@click.option("--dataset", help="Name, folder, CSV or card: gives classes and image size; images need not be there.")
@click.option(
    "--classes", type=click.IntRange(2, 100_000), help=f"Instead of --dataset.  [default: {_CLASSES}, as in the papers]"
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
@click.option("--figure", type=click.Path(path_type=Path), metavar="FILE", help="Draw to FILE: .png, .pdf or .svg.")
@click.option("--format", "formats", metavar="NAMES", help="html, csv, latex, md, …, as of a report.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE|DIR", help="Where the files of --format go.")
@data_root_option
@catalog_option
@json_option
def command(
    methods: str,
    dataset: str | None,
    classes: int | None,
    settings: tuple[str, ...],
    vary: str | None,
    budget: int | None,
    compare: str | None,
    context_mib: int | None,
    inference: bool,
    savings: bool | None,
    figure: Path | None,
    formats: str | None,
    output: Path | None,
    data_root: Path,
    catalog: tuple[Path, ...],
    json: bool,
    **options: Any,
) -> int:
    """Predict the peak memory of a training step, method by method: in seconds, and without images, weights or GPU.

    allocated: what tensors take. reserved: what torch takes from the driver. process: what nvidia-smi would show.
    """
    catalogue = Catalog(catalog)
    target = Target.parse(formats, output, catalogue)
    if figure is not None:
        check_file(figure, "--figure", FORMATS)
    assignments = parse_assignments(settings, ("method", "dataset", "training"))
    names = _methods(methods, catalogue)

    from petlbench.memory.predict import CONTEXT
    from petlbench.report.kinds.memory import Forecast
    from petlbench.study.forecast.memory import Extras
    from petlbench.study.grid import Grid, Vary

    varied = Vary.parse(vary) if vary is not None else None
    _check_given_once(varied, options, assignments["method"])
    number, image_size = _task(dataset, classes, assignments["dataset"], catalogue, data_root)
    request = _request(options, assignments, image_size)
    runs = Grid(names, (), (0,), request, vary=varied).plans(catalogue, data_root)
    few = len(names) <= _FEW and varied is None and budget is None
    extras = Extras(
        context=CONTEXT if context_mib is None else context_mib * 2**20,
        budget=budget,
        inference=inference,
        savings=few if savings is None else savings,
    )
    rows, comparison = _predict(runs, number, extras, catalog, compare is not None)
    task = {"classes": number, "dataset": dataset, "settings": assignments}
    document = _document(rows, extras, comparison, varied, task)
    _deliver(Forecast(rows, extras, document["config"], varied, comparison), document, target, figure, json)
    return 1 if any(row.failed for row in rows) else 0


def _deliver(
    forecast: Forecast, document: Mapping[str, Any], target: Target, figure: Path | None, as_json: bool
) -> None:
    """Draw, write and print what was predicted."""
    from petlbench.report.kinds.memory import memory_document, memory_figure

    if figure is not None:
        from petlbench.report.render.figure_files import draw

        draw(memory_figure(forecast), figure)
    report = memory_document(forecast)
    files = target.write(report)
    text = target.text(report)
    if as_json:
        print_json(document)
    elif text is not None:
        click.echo(text, nl=False)
    else:
        for table in report.tables:
            print_report_table(table)
        if files:
            click.echo(f"written: {', '.join(map(str, files))}")


def _methods(text: str, catalog: Catalog) -> list[str]:
    """Read the names of methods, each once and in the order given; all of them alphabetically."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise InputError(f"--method '{text}' names no method", hint="see petlbench list methods", kind="usage")
    if names == ["all"]:
        return list(catalog.entries("method"))
    return [catalog.find("method", name).name for name in names]


def _check_given_once(varied: Vary | None, options: Mapping[str, Any], method_settings: Mapping[str, Any]) -> None:
    if varied is None:
        return
    twice = options.get(varied.name.replace("-", "_")) is not None
    if twice or varied.name.removeprefix("method.") in method_settings:
        option = f"--set {varied.name}" if varied.name.startswith("method.") else f"--{varied.name}"
        raise InputError(f"{option} is given, and varied by --vary too", hint="leave one of them out", kind="usage")


def _task(
    dataset: str | None, classes: int | None, settings: Mapping[str, str], catalog: Catalog, data_root: Path
) -> tuple[int, int | None]:
    """Number of classes, and the image size in pixels where a card gives one."""
    if dataset is None:
        if settings:
            raise InputError(
                "--set dataset.… goes with --dataset, which is not given", hint="add --dataset NAME", kind="usage"
            )
        return _CLASSES if classes is None else classes, None
    if classes is not None:
        raise InputError(
            "--dataset and --classes exclude each other: a dataset has its own classes",
            hint="leave one of them out",
            kind="usage",
        )
    from petlbench.data.dataset import describe_dataset

    described = describe_dataset(dataset, catalog=catalog, data_root=data_root, settings=settings)
    return len(described.card.classes), described.card.image_size


def _request(
    options: Mapping[str, Any], assignments: Mapping[str, Mapping[str, str]], image_size: int | None
) -> Request:
    from petlbench.core.request import Request

    values = {name: value for name, value in options.items() if value is not None}
    training = {**assignments["training"]} | {name: values.pop(name) for name in _TRAINING if name in values}
    sized = {"image_size": image_size, **values}
    return Request(method="", method_settings=assignments["method"], training=training, weights="random", **sized)


def _predict(
    runs: list[PlannedRun], classes: int, extras: Extras, folders: tuple[Path, ...], with_papers: bool
) -> tuple[list[Row], Comparison | None]:
    from petlbench.core.environment import usable_cores
    from petlbench.core.process_pool import open_workers
    from petlbench.core.progress_bars import ShownProgress
    from petlbench.study.forecast.memory import predict_rows
    from petlbench.study.forecast.papers import published_memory

    papers = published_memory() if with_papers else None
    alone = len(runs) <= _ALONE and not with_papers
    with open_workers(1 if alone else usable_cores()) as workers, ShownProgress() as progress:
        rows = predict_rows(runs, classes, extras, folders=folders, workers=workers, progress=progress)
        return rows, papers.compare_papers(folders, workers, progress) if papers is not None else None


def _document(
    rows: list[Row],
    extras: Extras,
    comparison: Comparison | None,
    varied: Vary | None,
    task: Mapping[str, Any],
) -> dict[str, Any]:
    from petlbench.study.forecast.memory import LARGEST, common_settings

    config = common_settings([row.run for row in rows])
    config |= {
        **task,
        "context": extras.context if config["device"] == "cuda" else None,
        "budget": extras.budget,
        "largest_batch_size": LARGEST,
        "vary": {varied.name: list(varied.values)} if varied is not None else None,
    }
    document: dict[str, Any] = {"rows": [row.document(extras) for row in rows], "config": config}
    if comparison is not None:
        papers = comparison.document()
        document |= {"comparison": papers["comparison"], "fits_of_constants": papers["constants"]}
    return document
