"""``petlbench run``: one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from petlbench.cli.assignments import parse_assignments
from petlbench.cli.options import CatalogOption, DataRootOption, JsonOption, OutputOption, data_root
from petlbench.cli.output import mebibytes, number, percent, print_facts, print_json, seconds

if TYPE_CHECKING:
    from petlbench.config import RunConfig
    from petlbench.dryrun import DryRun
    from petlbench.result import Memory, Parameters, Result

__all__ = ["EPILOG", "run"]

EPILOG = (
    "Example: petlbench run --method fpt --dataset lesions --backbone vit_tiny_patch16_224 --weights none "
    "--image-size 256 --epochs 5"
)

TRAINING = ("epochs", "batch_size", "lr", "weight_decay")


def run(
    method: Annotated[str, typer.Option(help="Name of a method; see petlbench list methods.")],
    dataset: Annotated[str, typer.Option(help="Name of a dataset, a folder of class folders, a CSV or a card.")],
    backbone: Annotated[str | None, typer.Option(help="timm name.  [default: the papers' ViT-B/16]")] = None,
    weights: Annotated[str, typer.Option(help="default (the hub), none (random) or a file.")] = "default",
    image_size: Annotated[int | None, typer.Option(help="Pixels.  [default: the card's, else the backbone's]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split.  [default: 20]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.  [default: 16]")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.  [default: the method's]")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.  [default: the method's]")] = None,
    seed: Annotated[int, typer.Option(help="Seed of initialisation, order and augmentation.")] = 0,
    split: Annotated[
        str | None, typer.Option(help="official, random, kfold:K/I or repeat:N/I.  [default: the card's]")
    ] = None,
    split_seed: Annotated[int, typer.Option(help="Seed of the split, the same for all seeds of a study.")] = 0,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of one operator.  [default: cores, at most 8]")] = None,
    precision: Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Mixed precision.")] = "fp32",
    attention_kernel: Annotated[
        Literal["auto", "eager", "fused"], typer.Option(help="Explicit attention or torch's fused kernels.")
    ] = "auto",
    normalize: Annotated[
        Literal["backbone", "card"], typer.Option(help="Whose mean and standard deviation.")
    ] = "backbone",
    preload: Annotated[
        bool | None,
        typer.Option("--preload/--no-preload", help="Compute frozen features once.  [default: where possible]"),
    ] = None,
    skip_corrupt: Annotated[bool, typer.Option("--skip-corrupt", help="Leave unreadable images out.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting: method.KEY=V, dataset.KEY=V or training.KEY=V.", metavar="KEY=V"),
    ] = None,
    data_root_: DataRootOption = None,
    output: OutputOption = Path("results"),
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow: an address, or none.  [default: a file in the output folder]")
    ] = None,
    workers: Annotated[int, typer.Option(help="Threads that decode images.", min=1, max=64)] = 2,
    catalog: CatalogOption = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run again although a result stands.")] = False,
    accept: Annotated[bool, typer.Option("--accept", help="Take a result whose data or code changed.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count parameters and predict memory; train nothing.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Adapt one backbone to one dataset with one method, and record how well, how large, how fast."""
    given = parse_assignments(set_ or [], ("method", "dataset", "training"))
    flags = dict(zip(TRAINING, (epochs, batch_size, lr, weight_decay), strict=True))
    given["training"] |= {name: value for name, value in flags.items() if value is not None}  # type: ignore[misc]

    from petlbench.backbone import DEFAULT_BACKBONE
    from petlbench.catalog import Catalog
    from petlbench.resolve import Request, resolve

    found, root = Catalog(catalog or ()), data_root(data_root_)
    request = Request(
        method=method,
        dataset=dataset,
        backbone=backbone or DEFAULT_BACKBONE,
        weights=weights,
        image_size=image_size,
        training=given["training"],
        method_settings=given["method"],
        dataset_settings=given["dataset"],
        split=split,
        split_seed=split_seed,
        seed=seed,
        device=device,
        threads=threads,
        precision=precision,
        attention_kernel=attention_kernel,
        normalize=normalize,
        preload=preload,
        skip_corrupt=skip_corrupt,
    )
    config = resolve(request, found, root)
    if dry_run:
        from petlbench.dryrun import dry_run as predict

        return _show_dry_run(predict(config, found, root), json)
    from petlbench.cli.bars import ShownProgress
    from petlbench.run import Place, execute

    place = Place(output, root, tracking_uri, workers, rerun, accept)
    with ShownProgress() as progress:
        result = execute(config, place, found, progress)
    return _show(result, output, json)


def _show(result: Result, output: Path, json: bool) -> int:
    folder = output / result.run_id
    if json:
        document = result.document()
        document["artifacts"] = {name: str(folder / file) for name, file in result.artifacts.items()}
        print_json(document)
    else:
        print_facts(_title(result.config), _facts(result, folder))
    return 0 if result.status == "finished" else 1


def _facts(result: Result, folder: Path) -> dict[str, str]:
    facts = {"status": result.status, "backbone": _backbone(result.config)}
    if result.error is not None:
        facts |= {"error": result.error["message"], "hint": result.error["hint"]}
    for split, name in (("val", "validation"), ("test", "test")):
        if split in result.metrics:
            metrics = result.metrics[split]
            facts[f"{name} AUC"] = f"{percent(metrics['auc'])} %  (accuracy {percent(metrics['accuracy'])} %)"
    if result.best_epoch is not None:
        facts["best epoch"] = f"{result.best_epoch} of {result.config.training.epochs}, by validation AUC"
    facts |= _size(result.parameters, result.memory)
    facts["PPE, PME"] = f"{_score(result.scores.ppe)}, {_score(result.scores.pme)}{_reference(result)}"
    facts["time"] = ", ".join(f"{name} {seconds(value)}" for name, value in result.timing.items())
    return facts | {"result": str(folder)}


def _size(parameters: Parameters | None, memory: Memory | None) -> dict[str, str]:
    facts = {}
    if parameters is not None:
        facts["learnable parameters"] = (
            f"{parameters.learnable:,} of {parameters.total:,}: {percent(parameters.ratio, 3)} % "
            f"(the paper's way of counting: {percent(parameters.ratio_published, 3)} %)"
        )
    if memory is not None:
        facts["peak memory, MiB"] = (
            f"allocated {mebibytes(memory.allocated)}, reserved {mebibytes(memory.reserved)}, "
            f"process {mebibytes(memory.process)} (training step, {memory.source})"
        )
    return facts


def _reference(result: Result) -> str:
    if result.scores.pme is None and result.status == "finished":
        return "  (PME needs a run of full at the same backbone, size, batch, precision and device)"
    return ""


def _score(value: float | None) -> str:
    return number(None if value is None else 100 * value)


def _title(config: RunConfig) -> str:
    return f"{config.method} on {config.dataset_name}, seed {config.seed}"


def _backbone(config: RunConfig) -> str:
    weights = {"default": "pre-trained weights", "none": "random weights"}.get(config.weights, config.weights)
    return f"{config.backbone} at {config.image_size} pixels, {weights}"


def _show_dry_run(plan: DryRun, json: bool) -> int:
    if json:
        print_json(plan.document())
        return 0
    facts: dict[str, Any] = {"run id": plan.config.run_id, "backbone": _backbone(plan.config)}
    facts |= _size(plan.parameters, plan.memory)
    if plan.bytes_per_image is not None:
        facts["feature cache"] = f"{mebibytes(plan.bytes_per_image)} MiB an image, {mebibytes(plan.bytes)} MiB in all"
    print_facts(f"{_title(plan.config)}: dry run", facts)
    return 0
