"""``petlbench evaluate``: one more reading of a test set by a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petlbench.cli.options import (
    catalog_option,
    data_root_option,
    download_option,
    json_option,
    output_option,
    test_set_option,
)
from petlbench.cli.output import print_facts, print_json, print_table
from petlbench.core.units import number, percent

if TYPE_CHECKING:
    from petlbench.results.evaluation import Evaluation, Robustness


@click.command(
    "evaluate", epilog="Example: petlbench evaluate lora-eyes-s0 --on abroad.csv --test-set label_column=grade"
)
@click.argument("run")
@click.option("--on", required=True, help="A dataset as petlbench run takes it; of the run's own, its test side.")
@test_set_option
@click.option(
    "--corruptions",
    metavar="NAME",
    help="medmnistc: read corrupted images, too; medmnistc:DATASET for the corruptions of one of MedMNIST's.",
)
@click.option("--rerun", is_flag=True, help="Read the test set again although an evaluation stands.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads that decode.")
@data_root_option
@download_option
@output_option
@catalog_option
@json_option
def command(run: str, output: Path, json: bool, **options: Any) -> None:
    """Read a test set once more with what a run has learned: scores, intervals and predictions.

    RUN is a run's id, the beginning of one, or the folder of a finished run. The reading is logged, and what comes of
    it is kept in evaluations/ in the run's folder; the run's result stays as it is. Images that the run was trained or
    selected on are refused.
    """
    import petlbench as pb

    evaluation = pb.evaluate(run, results=output, progress=True, **options)
    if json:
        print_json(evaluation.document())
        return
    print_facts(f"{evaluation.run_id} on {evaluation.data['title']}", _facts(evaluation))
    if evaluation.robustness is not None:
        _print_robustness(evaluation.robustness)


def _facts(evaluation: Evaluation) -> dict[str, str]:
    from petlbench.cli.commands.run import calibration_facts, score_text, title_of

    scores, classes = evaluation.metrics, evaluation.data["classes"]
    facts = {"images": f"{scores['count']}: {'its test side' if evaluation.is_own else 'all of them'}"}
    if absent := [classes[index] for index in scores.get("classes_absent", ())]:
        facts["classes without an image"] = f"{', '.join(absent)}; scores are of the others"
    for name, interval in evaluation.intervals.items():
        bounds = [] if interval is None else [score_text(name, interval[end]) for end in ("low", "high")]
        facts[title_of(name)] = score_text(name, scores[name]) + (f"  ({' to '.join(bounds)})" if bounds else "")
    return facts | calibration_facts(evaluation.calibration) | {"evaluation": evaluation.name}


def _print_robustness(robustness: Robustness) -> None:
    headings = ["corruption", *(f"{severity}>" for severity in range(1, 6)), "mean, %>", "increase>", "BE>", "rBE>"]
    rows = [
        [
            scores.name.replace("_", " "),
            *(percent(row["balanced_error"], 1) for row in scores.by_severity),
            *(percent(value, 1) for value in (scores.balanced_error, scores.increase)),
            *(number(value, 3) for value in (scores.be, scores.rbe)),
        ]
        for scores in robustness.corruptions
    ]
    relative = f"BE and rBE are relative to {robustness.reference}" if robustness.reference else "BE needs a reference"
    caption = (
        f"Balanced error in %, by severity; {percent(robustness.clean['balanced_error'], 1)} on clean images of "
        f"{robustness.image_size} pixels, over which the increase is. Corruptions of {robustness.dataset}. {relative}"
        f"{f': {number(robustness.be, 3)} and {number(robustness.rbe, 3)} on average' if robustness.reference else ''}."
    )
    print_table("corrupted images", headings, rows, caption=caption)
