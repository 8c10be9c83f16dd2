"""``petlbench recommend``: which method, decided on recorded trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from petlbench.cli.options import PLACE, json_option
from petlbench.cli.output import print_json, print_table
from petlbench.core.units import number

if TYPE_CHECKING:
    from petlbench.recommend.replay import Replay

__all__ = ["command"]


@click.command("recommend", epilog="Example: petlbench recommend --replay trials.csv finals.csv --trials 52")
@click.option(
    "--replay",
    type=(PLACE, PLACE),
    required=True,
    metavar="TRIALS FINALS",
    help="CSV of recorded trials (task, method, lr, weight_decay, settings, val_top1; val_loss if known), and CSV of "
    "what each method's winner reached (task, method, test_last).",
)
@click.option("--trials", type=click.IntRange(1), default=52, show_default=True, help="Trials that a task may use.")
@click.option(
    "--prior",
    metavar="none|FILE",
    default="shipped",
    show_default=True,
    help="What is believed before the first trial, beside what the table's other tasks say.",
)
@click.option(
    "--leave-out", multiple=True, metavar="TASK", help="A task that no prior may have seen, beside the one decided."
)
@click.option(
    "--validation-images",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Images that a trial's score is made of.",
)
@json_option
def command(
    replay: tuple[Path, Path],
    trials: int,
    prior: str,
    leave_out: tuple[str, ...],
    validation_images: int,
    json: bool,
) -> None:
    """Say which method to take, by the trials that are worth most.

    It decides on recorded trials, task by task, and counts what the decision costs: the regret, in points of the test
    score, against the best method in hindsight. No prior has seen the task that is decided.
    """
    import petlbench as pb

    decided = pb.recommend(
        replay=replay, trials=trials, prior=prior, leave_out=leave_out, validation_images=validation_images
    )
    if json:
        print_json(decided.document())
        return
    _print(decided)


def _print(decided: Replay) -> None:
    mean = decided.document()["mean"]
    rows = [
        [d.task, d.method, str(d.trials), number(d.test), number(d.regret), "yes" if d.separable else "no", d.best]
        for d in decided.decisions
    ]
    columns = ["task", "method", "trials>", "test %>", "regret>", "separable", "best in hindsight"]
    caption = (
        f"Mean regret {number(mean['regret'])} points ({number(mean['low'])} to {number(mean['high'])}, bootstrap over "
        f"tasks), worst {number(mean['worst'])}. Regret: the best method's test score less the chosen one's."
    )
    print_table("recommend: replay of recorded trials", columns, rows, caption=caption)
