"""``petlbench recommend``: which method, for some data, a card and some hours."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petlbench.cli.completion import names_of
from petlbench.cli.help import GroupedCommand
from petlbench.cli.options import (
    PLACE,
    SIZE,
    executor_options,
    json_option,
    methods_option,
    parse_assignments,
    parse_list,
    request_values,
    run_options,
)
from petlbench.cli.output import print_document, print_json, print_table, say
from petlbench.core.errors import InputError
from petlbench.core.units import number

if TYPE_CHECKING:
    from petlbench.recommend.answer import Answer
    from petlbench.recommend.replay import Replay

_EPILOG = (
    "Example: petlbench recommend --dataset lesions --hours 0.25 --backbone petlbench_micro --image-size 64 --epochs 5"
)


class _Share(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic in new versions of click
    """A share, written as ``2%`` or ``0.02``."""

    name = "share"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a share as a fraction."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"'{value}' is no share: write 2% or 0.02", param, ctx)
        if not 0 < share <= 1:
            self.fail(f"'{value}' is not between 0 and 100 %", param, ctx)
        return share


class _Duration(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic in new versions of click
    """A time, written as ``50ms`` or ``0.05s``."""

    name = "time"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a time as seconds."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s)", str(value).strip())
        if match is None or float(match[1]) == 0:
            self.fail(f"'{value}' is no time: write 50ms or 0.05s", param, ctx)
        return float(match[1]) / (1000 if match[2] == "ms" else 1)


@click.command("recommend", cls=GroupedCommand, epilog=_EPILOG)
@click.option(
    "--dataset",
    metavar="NAME",
    help="A catalogue name, a folder of class folders, a CSV, or a card.",
    shell_complete=names_of("dataset"),
)
@click.option("--hours", type=click.FloatRange(0, min_open=True), help="Hours that all runs may take together.")
@click.option("--budget", type=SIZE, metavar="SIZE", help="Memory that a training step may take, such as 8GiB.")
@methods_option(flag="--methods", note="  [default: all]")
@click.option("--metric", default="auc", show_default=True, help="The score, of which more is better.")
@click.option("--max-params", type=_Share(), metavar="SHARE", help="Largest share of learnable parameters, such as 2%.")
@click.option(
    "--max-latency", type=_Duration(), metavar="TIME", help="Longest time to predict an image here, such as 50ms."
)
@click.option("--learn-from", type=PLACE, metavar="DIR", help="Own results, whose other datasets join the prior.")
@click.option("--trials", type=click.IntRange(1), help="Most trials.  [default: 200, and 52 a task in a replay]")
@click.option(
    "--prior", metavar="none|FILE", default="shipped", show_default=True, help="What is believed at the start."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the candidates and the trials.")
@click.option("--test-finalists", is_flag=True, help="Test the second best, too.")
@click.option("--to", type=PLACE, metavar="FILE", help="Write the answer as a page: .html, .md, .tex, .csv or .png.")
@click.option("--replay", type=(PLACE, PLACE), metavar="TRIALS FINALS", help="Decide on recorded trials instead.")
@click.option("--leave-out", multiple=True, metavar="TASK", help="A task of the replay that no prior may have seen.")
@click.option(
    "--validation-images",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Images that a recorded score is made of.",
)
@partial(run_options, several=("backbone",))
@executor_options
@json_option
def command(
    dataset: str | None,
    hours: float | None,
    replay: tuple[Path, Path] | None,
    trials: int | None,
    leave_out: tuple[str, ...],
    validation_images: int,
    prior: str,
    **options: Any,
) -> None:
    """Say which method to take for a dataset, within some hours and some memory.

    Methods that do not fit the budget are left out by predicted memory. The others race, on every backbone that is
    given: every trial runs on the validation images alone, a method is dropped while it is worse than the leader by the
    interval of their difference (over images, seeds, and settings not tried), and the best trials of the two best
    methods run again on further seeds. The one that is recommended is tested, once. The same command goes on from where
    it was stopped.

    --replay decides on recorded trials instead, and counts the regret against the best method in hindsight. Its files
    are CSV, of trials: task, method, lr, weight_decay, settings, val_top1, val_loss; and of finals: task, method,
    test_last.
    """
    import petlbench as pb

    json, to = options.pop("json"), options.pop("to")
    if replay is not None:
        decided = pb.replay(
            *replay, budget=trials or 52, prior=prior, leave_out=leave_out, validation_images=validation_images
        )
        print_json(decided.document()) if json else _print_replay(decided)
        return
    if dataset is None or hours is None:
        raise InputError(
            "recommend needs --dataset and --hours, or --replay", hint="see petlbench recommend --help", kind="usage"
        )
    methods, groups = options.pop("methods"), parse_assignments(options.pop("settings"))
    names = "all" if methods is None else parse_list(methods, "--methods", str)
    values = {**request_values(options, groups.pop("training", {})), "settings": groups, "prior": prior}
    with redirect_stdout(sys.stderr):
        answer = pb.recommend(dataset, hours=hours, methods=names, trials=trials or 200, **values)
    if to is not None:
        answer.report().save(to)
    print_json(answer.document()) if json else _print(answer, to)


def _print(answer: Answer, to: Path | None) -> None:
    print_document(answer.report())
    if to is not None:
        say(f"The page: {to}")


def _print_replay(decided: Replay) -> None:
    mean = decided.document()["mean"]
    rows = [
        [d.task, d.method, str(d.trials), number(d.test), number(d.regret), "yes" if d.separable else "no", d.best]
        for d in decided.decisions
    ]
    columns = ["task", "method", "trials>", "test %>", "regret>", "separable", "best in hindsight"]
    caption = (
        f"Mean regret {number(mean['regret'])} points ({number(mean['low'])} to {number(mean['high'])}, bootstrap over "
        f"tasks), worst {number(mean['worst'])}. Regret: the best method's test score less the chosen one's. "
        f"Of the intervals of differences to the chosen one, {100 * mean['held']:.0f} % hold that of the test scores."
    )
    print_table("recommend: replay of recorded trials", columns, rows, caption=caption)
