"""``petlbench run``: one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petlbench.cli.completion import names_of
from petlbench.cli.help import GroupedCommand
from petlbench.cli.options import PLACE, json_option, parse_assignments, protocol_options, request_values, run_options
from petlbench.cli.output import print_facts, print_json
from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.core.units import MISSING, mebibytes, number, percent, readable_size, seconds

if TYPE_CHECKING:
    from petlbench.core.config import RunConfig
    from petlbench.results.evaluation import Evaluation
    from petlbench.results.result import Calibration, Inference, Memory, Origin, Parameters, Result
    from petlbench.study.forecast.preview import DryRun

_ERRORS = {"ece": "calibration error", "loss": "log loss", "brier": "Brier score"}
_STEP_COST = "a step reads tokens slower than keys and values, see docs/preloading.md"
EPILOG = """\b
Example: petlbench run --method fpt --dataset lesions --backbone petlbench_micro --image-size 256 --epochs 5
         petlbench run --method lora --dataset my_images/ --set method.rank=4 --dry-run
         petlbench run --config run.toml --seed 1
"""


@click.command("run", cls=GroupedCommand, epilog=EPILOG)
@click.option("--method", help="Name of a method; see petlbench list methods.", shell_complete=names_of("method"))
@click.option(
    "--dataset",
    help="Name of a dataset, a folder of class folders, a CSV or a card.",
    shell_complete=names_of("dataset"),
)
@click.option("--seed", type=int, help="Of initial values, order and augmentation.  [default: 0]")
@click.option("--config", type=PLACE, metavar="FILE", help="A run file (TOML); options go before it.")
@protocol_options
@run_options
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads that decode.")
@click.option("--rerun", is_flag=True, help="Run again although a result stands.")
@click.option("--accept", is_flag=True, help="Take a result whose data or code has changed since.")
@click.option("--verify", is_flag=True, help="Read all data of a finished run, rather than trust times of files.")
@click.option("--dry-run", is_flag=True, help="Count parameters and predict memory; train nothing.")
@json_option
def command(settings: tuple[str, ...], dry_run: bool, json: bool, **options: Any) -> int:
    """Adapt one backbone to one dataset with one method, and record how well, how large, how fast."""
    import petlbench as pb

    assignments = parse_assignments(settings, ("method", "dataset", "training"))
    values = {**request_values(options, assignments["training"])}
    for group in ("method", "dataset"):
        if assignments[group]:
            values[f"{group}_settings"] = assignments[group]
    absent = [name for name in ("method", "dataset") if name not in values]
    if absent and "config" not in values:
        raise InputError(f"Missing option '--{absent[0]}'.", hint="see petlbench run --help", kind="usage")
    if dry_run:
        return _show_dry_run(pb.dry_run(**values), options["cache_dir"], json)
    from petlbench.results.table import with_scores

    # One that was finished already has the scores of its day.
    [result] = with_scores([pb.run(**values)], options["output"])
    return show_result(result, options["output"], json)


def show_result(result: Result, output: Path, json: bool) -> int:
    """Print a result, and return the exit status of a run that ended so."""
    from petlbench.results.evaluation import read_evaluations

    folder = output / result.run_id
    evaluations = read_evaluations(folder)
    if json:
        document = result.document()
        document["artifacts"] = {name: str(folder / file) for name, file in result.artifacts.items()}
        document["evaluations"] = [evaluation.document() for evaluation in evaluations]
        print_json(document)
    else:
        facts = {f"read on {each.name}": _evaluated(each, result.data.get("selection", "auc")) for each in evaluations}
        print_facts(_title(result.config), _facts(result, folder) | facts)
    return 0 if result.status == "finished" else 1


def _evaluated(evaluation: Evaluation, score: str) -> str:
    """What came of one more reading of a test set, in a line."""
    scores, robustness = evaluation.metrics, evaluation.robustness
    text = f"{title_of(score)} {_score_text(scores, score)}, {scores['count']} images"
    if robustness is not None:
        clean, corrupted = robustness.clean["balanced_error"], robustness.balanced_error
        text += f"; balanced error {percent(clean)} %, corrupted {percent(corrupted)} %"
    return text


def _facts(result: Result, folder: Path) -> dict[str, str]:
    from petlbench.results.stored import Stored

    facts = {"status": result.status, "backbone": _backbone(result.config)}
    if result.error is not None:
        sizes = ", ".join(f"{name} {result.error[name]}" for name in ("asked", "free", "total") if name in result.error)
        shortage = {"memory": sizes} if sizes else {}
        facts |= {"error": result.error["message"], **shortage, "hint": result.error["hint"]}
    chosen_by = result.data.get("selection", "auc")
    title = title_of(chosen_by)
    external = f"{title} on {result.data['external']['title']}" if "external" in result.data else ""
    for split, name in (("val", f"validation {title}"), ("test", f"test {title}"), ("external", external)):
        if split in result.metrics:
            facts[name] = _score_text(result.metrics[split], chosen_by, result.intervals.get(split, {}))
        if split in result.metrics_by_group:
            by_group = result.metrics_by_group[split]
            text = _score_text(by_group, chosen_by, result.intervals_by_group.get(split, {}))
            facts[f"{name}, by group"] = text + _groups(by_group, result.config.aggregate)
    if result.status == "finished" and not result.data.get("images", {}).get("test", 1):
        facts[f"test {title}"] = "none: the dataset has no test split"
    if result.origin is not None:
        facts |= _origin(result.origin)
    if "drawn" in result.data:
        images = result.data["images"]["train"]
        own = ", the release's own" if result.data["drawn"]["official"] else ""
        facts["trained on"] = f"{result.config.part}, draw {result.config.draw}{own}: {images} images"
    if result.best_epoch is not None:
        is_last = result.config.training.select == "last"
        epoch = f"{result.best_epoch} of {result.config.training.epochs}"
        few = Stored(result.document()).few_validation
        doubt = f"; {few} validation images are too few to choose by" if few else ""
        best = {"best epoch": f"{epoch}, {_chosen_by(result, title)}{doubt}"}
        facts |= {"epoch": f"{epoch}, the last"} if is_last else best
    facts |= _size(result.parameters, result.memory) | _prediction(result.inference)
    facts |= calibration_facts(result.calibration)
    facts["PPE, PME"] = f"{_score(result.scores.ppe)}, {_score(result.scores.pme)}"
    if result.scores.pme is None and result.status == "finished":
        facts["PPE, PME"] += "  (PME needs a run of full at the same backbone, size, batch, precision and device)"
    facts["time"] = ", ".join(f"{name} {seconds(value)}" for name, value in result.timing.items())
    notes = result.data.get("notes", [])
    facts |= {f"note {number}" if len(notes) > 1 else "note": note for number, note in enumerate(notes, start=1)}
    return facts | {"result": str(folder)}


def _origin(origin: Origin) -> dict[str, str]:
    """The protocol with what deviates from it, and the recipe or the sweep that settings are from."""
    return {
        name: printable(text)
        for name, text in (("protocol", origin.label), ("recipe", origin.recipe), ("settings of sweep", origin.sweep))
        if text
    }


def _chosen_by(result: Result, title: str) -> str:
    """What chose the epoch, of a task whose score has a title."""
    select = result.config.training.select
    if worst := result.data.get("selected_by"):
        return f"by validation {title} of the worst subgroup by {printable(str(worst.get('column')))}"
    return f"by validation {title if select == 'score' else title_of(select)}"


def _groups(metrics: Mapping[str, Any], aggregate: str) -> str:
    left_out = f", {metrics['ambiguous']} left out" if metrics.get("ambiguous") else ""
    return f"  of {metrics['count']} groups by {aggregate}{left_out}"


def title_of(metric: str) -> str:
    """What tables call a metric."""
    entry = Catalog().entries("metric").get(metric)
    return metric if entry is None else entry.title


def _score_text(metrics: Mapping[str, Any], name: str, intervals: Mapping[str, Any] | None = None) -> str:
    """A score with its unit and interval; in brackets the accuracy or, where there is none, the score next to it."""
    rows = Catalog().entries("metric")
    second = next((each for each in ("accuracy", *metrics) if each in metrics and each != name and each in rows), name)
    texts = [score_text(each, metrics.get(each)) for each in (name, second)]
    texts[0] += interval_text(name, (intervals or {}).get(name))
    return f"{texts[0]}  ({title_of(second)} {texts[1]})" if second != name else texts[0]


def interval_text(metric: str, interval: Mapping[str, Any] | None) -> str:
    """The 95 % interval of a score in its unit, behind it; empty where there is none."""
    if interval is None or interval.get("low") is None:
        return ""
    low, high = (score_text(metric, interval[end]).removesuffix(" %") for end in ("low", "high"))
    few = ", a hint: too few positives" if interval.get("few") else ""
    return f", 95 % interval {low} to {high}{few}"


def score_text(metric: str, value: float | None) -> str:
    """A score with its unit."""
    entry = Catalog().entries("metric").get(metric)
    is_fraction = entry is not None and entry.card.get("unit", "%") == "%"
    return f"{percent(value)} %" if is_fraction else number(value, 4)


def _size(parameters: Parameters | None, memory: Memory | None) -> dict[str, str]:
    facts = {}
    if parameters is not None:
        facts["learnable parameters"] = (
            f"{parameters.learnable:,} of {parameters.total:,}: {percent(parameters.ratio, 3)} %"
        )
        if parameters.ratio_published != parameters.ratio:
            facts["by the paper's way of counting"] = f"{percent(parameters.ratio_published, 3)} %"
    if memory is not None:
        facts["peak memory, MiB"] = (
            f"allocated {mebibytes(memory.allocated)}, reserved {mebibytes(memory.reserved)}, "
            f"process {mebibytes(memory.process)} (training step, {memory.source})"
        )
        if memory.others:
            facts["on the device besides"] = f"other processes held {mebibytes(memory.others)} MiB when the run began"
    return facts


def _prediction(inference: Inference | None) -> dict[str, str]:
    if inference is None:
        return {}
    if inference.latency is None:
        return {"prediction": f"not measured: {inference.error}"}
    words = f"{number(1000 * inference.latency, 1)} ms an image"
    if (memory := inference.memory) is not None:
        peak, batch = mebibytes(memory.allocated), inference.batch_size
        if inference.images_per_second is None:
            words += f", a peak of {peak} MiB in batches of {batch} ({memory.source}; not measured: {inference.error})"
        else:
            pace = number(inference.images_per_second, 1)
            words += f", {pace} images/s and a peak of {peak} MiB in batches of {batch}"
    return {"prediction": f"{words} (by {inference.measured_by})" if inference.measured_by else words}


def calibration_facts(calibration: Calibration | None) -> dict[str, str]:
    """What a temperature has changed, on the test split or else on validation."""
    if calibration is None:
        return {}
    bounds = [value for value in (calibration.low, calibration.high) if value is not None]
    text = calibration.note or " to ".join(f"{value:.3g}" for value in bounds) or "fitted"
    facts = {"temperature": f"{calibration.temperature:.3g} ({text}), on {calibration.images} validation images"}
    for split in ("test", "val"):
        if split in calibration.figures and calibration.temperature != 1:
            before, after = (calibration.figures[split][when] for when in ("before", "after"))
            changes = [f"{title} {before[name]:.4f} -> {after[name]:.4f}" for name, title in _ERRORS.items()]
            return facts | {f"calibrated, {'validation' if split == 'val' else split}": ", ".join(changes)}
    return facts


def _score(value: float | None) -> str:
    return number(None if value is None else 100 * value)


def _title(config: RunConfig) -> str:
    dataset = config.dataset_name or printable(Path(config.dataset).name)
    return f"{config.method} on {dataset}, seed {config.seed}"


def _backbone(config: RunConfig) -> str:
    weights = {"default": "pre-trained weights", "random": "random weights", "none": "random weights"}.get(
        config.weights, config.weights
    )
    return f"{config.backbone} at {config.image_size} pixels, {weights}"


def _show_dry_run(plan: DryRun, cache_dir: Path, json: bool) -> int:
    if json:
        print_json(plan.document())
        return 0
    facts: dict[str, Any] = {"run id": plan.config.run_id, "backbone": _backbone(plan.config)}
    facts |= _size(plan.parameters, plan.memory)
    if plan.preloaded.bytes_per_image is not None:
        sizes = (plan.preloaded.bytes_per_image, plan.preloaded.bytes, plan.preloaded.free)
        each, whole, free = (MISSING if size is None else readable_size(size) for size in sizes)
        facts["feature cache"] = f"{each} an image, {whole} in all; the disk of {cache_dir} has {free} free"
    if plan.preloaded.by_form is not None:
        forms = ", ".join(f"{form} {readable_size(size)}" for form, size in plan.preloaded.by_form.items())
        facts["kept as"] = f"{plan.preloaded.form} (an image: {forms}; {_STEP_COST})"
    print_facts(f"{_title(plan.config)}: dry run", facts)
    return 0
