"""``petlbench sweep``: search for the settings that suit each method on each dataset, and test the winner."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from petlbench.cli.help import GroupedCommand
from petlbench.cli.options import (
    datasets_option,
    executor_options,
    json_option,
    methods_option,
    parse_assignments,
    parse_list,
    protocol_options,
    request_values,
    run_options,
)
from petlbench.cli.output import print_json, print_table, say
from petlbench.core.units import number, params_text, seconds

if TYPE_CHECKING:
    from petlbench.sweep.sweep import SearchOutcome

EPILOG = (
    "Example: petlbench sweep lr_wd --method linear --dataset digits --backbone petlbench_micro --image-size 64 "
    "--epochs 2 --workers 2 --threads 1"
)


@click.command("sweep", cls=GroupedCommand, epilog=EPILOG)
@click.argument("sweep")
@methods_option(required=True)
@datasets_option(required=True)
@click.option("--trials", type=click.IntRange(1), help="Trials of every method.  [default: the sweep's]")
@click.option("--search-sizes/--no-search-sizes", default=None, help="Search the methods' sizes, too.  [the sweep's]")
@click.option("--track", type=click.Choice(["matched", "tuned"]), hidden=True)
@click.option("--study", help="The study of the winners' runs.  [default: the sweep's name]")
@click.option(
    "--storage",
    metavar="URL",
    help="postgresql://USER@HOST/DATABASE for several machines.  [default: sweeps.db in the output folder]",
)
@protocol_options
@run_options
@executor_options
@click.option("--no-final", is_flag=True, help="Name the winner, but neither run it on more seeds nor test it.")
@click.option("--retry-failed", is_flag=True, help="Try failed trials again.")
@click.option("--accept", is_flag=True, help="Take results whose data or code has changed since.")
@click.option("--dry-run", is_flag=True, help="Show what would be searched; train nothing.")
@json_option
def command(
    sweep: str,
    methods: str,
    datasets: str,
    settings: tuple[str, ...],
    no_final: bool,
    dry_run: bool,
    json: bool,
    **options: Any,
) -> int:
    """Search settings for each method on each dataset, with the same number of trials for all.

    SWEEP names a file of the catalogue (petlbench list sweeps). Trials are judged on validation and never see the test
    split. What is fixed by an option or by --set is not searched; --set also takes names of methods as groups.

    Several processes may work on one sweep at the same time; a stopped one goes on where it was.
    """
    import petlbench as pb
    from petlbench.cli.study_tables import print_searches

    if (track := options.pop("track")) is not None:
        new = "--search-sizes" if track == "tuned" else "--no-search-sizes"
        say(f"note: --track {track} is called {new} now, and goes with the next version", err=True)
        options["search_sizes"] = track == "tuned" if options["search_sizes"] is None else options["search_sizes"]
    groups = parse_assignments(settings)
    options = {**request_values(options, groups.pop("training", {})), "settings": groups, "test": not no_final}
    named = parse_list(methods, "--method", str), parse_list(datasets, "--dataset", str)
    if dry_run:
        documents = [plan.preview() for plan in pb.preview_sweep(sweep, *named, **options)]
        if json:
            print_json({"searches": documents, "trials": sum(document["trials"] for document in documents)})
        else:
            print_searches(documents)
        return 0
    # Ray prints on standard output what it thinks of a lost node; that is no part of the document.
    with redirect_stdout(sys.stderr):
        outcomes = pb.sweep(sweep, *named, **options).outcomes
    documents = [outcome.document() for outcome in outcomes]
    if json:
        several = {"sweeps": documents} if len(documents) > 1 else {}
        print_json({"sweep": sweep, **documents[0], **several})
    else:
        for outcome in outcomes:
            _show_one(outcome)
    # What cannot be had is no failure of the rest.
    searched = [outcome for outcome in outcomes if outcome.search is not None]
    runs = [run for outcome in searched for run in outcome.runs]
    is_done = all(outcome.winner is not None for outcome in searched)
    return 0 if is_done and all(run["status"] == "finished" for run in runs) else 1


def _show_one(outcome: SearchOutcome) -> None:
    if outcome.search is None:
        say(f"{outcome.method} on {outcome.dataset}: {outcome.refusal}")
        return
    card = outcome.search.card
    rows = [
        [
            str(trial.number),
            params_text(trial.params),
            trial.status,
            number(trial.value, 4),
            seconds(trial.seconds),
            trial.run_id or "",
        ]
        for trial in outcome.trials
    ]
    columns = ["trial>", "settings", "status", f"{card.objective}>", "time>", "run"]
    print_table(f"{outcome.search.title}, track {card.track}", columns, rows, caption=_caption(outcome))
    if outcome.runs:
        runs = [
            [str(run["seed"]), run["status"], _metric(run, "val"), _metric(run, "test"), run["run_id"] or ""]
            for run in outcome.runs
        ]
        print_table("the winner, tested once a seed", ["seed>", "status", "val AUC>", "test AUC>", "run"], runs)


def _caption(outcome: SearchOutcome) -> str:
    shares = ", ".join(f"{name.partition('.')[2]} {100 * share:.0f} %" for name, share in outcome.importances.items())
    lines = [f"importance: {shares or outcome.note}"]
    failed = sum(trial.status not in ("finished", "pruned") for trial in outcome.trials)
    if failed:
        lines.append(f"{failed} trials did not finish and count against the budget; --retry-failed tries them again")
    if outcome.winner is None:
        lines.append("no winner")
    else:
        lines.append(f"winner: trial {outcome.winner['number']}, {params_text(outcome.winner['params'])}")
        lines += [f"on the {edge['end']} edge of its range: {edge['name']}" for edge in outcome.winner["edge"]]
    return "\n".join(lines)


def _metric(run: Mapping[str, Any], split: str) -> str:
    return number(run["metrics"].get(split, {}).get("auc"), 4)
