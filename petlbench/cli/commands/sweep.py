"""``petlbench sweep``: search for the settings that suit each method on each dataset, and test the winner."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from petlbench.cli.options import executor_options, json_option, parse_assignments, parse_list
from petlbench.cli.output import MISSING, number, print_json, print_table, seconds
from petlbench.cli.run_options import request_values, run_options
from petlbench.core.errors import InputError, PetlbenchError

if TYPE_CHECKING:
    from petlbench.cli.progress_bars import ShownProgress
    from petlbench.core.catalog import Catalog
    from petlbench.run.image_cache import ImageCache
    from petlbench.run.options import RunOptions
    from petlbench.run.resolve import Request
    from petlbench.sweep.outcome import SearchOutcome
    from petlbench.sweep.search import Search, TrialFacts
    from petlbench.sweep.spec import SweepCard
    from petlbench.sweep.sweep import SweepOptions

__all__ = ["command"]

EPILOG = (
    "Example: petlbench sweep lr_wd --method linear --dataset digits --backbone petlbench_micro --image-size 64 "
    "--epochs 2 --workers 2 --threads 1"
)


@click.command("sweep", epilog=EPILOG)
@click.argument("sweep")
@click.option("--method", "methods", required=True, help="Names of methods, with commas between them, or all.")
@click.option("--dataset", "datasets", required=True, help="Names, folders, CSVs or cards, with commas between them.")
@click.option("--trials", type=click.IntRange(1), help="Trials of every method.  [default: the sweep's]")
@click.option("--track", type=click.Choice(["matched", "tuned"]), help="Whether sizes are searched.  [the sweep's]")
@click.option("--study", help="The study of the winners' runs.  [default: the sweep's name]")
@click.option(
    "--storage",
    metavar="URL",
    help="postgresql://USER@HOST/DATABASE for several machines.  [default: sweeps.db in the output folder]",
)
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
    trials: int | None,
    track: str | None,
    study: str | None,
    storage: str | None,
    settings: tuple[str, ...],
    data_root: Path,
    cache_dir: Path,
    cache_size: int | None,
    cache_images: ImageCache,
    output: Path,
    tracking_uri: str | None,
    catalog: tuple[Path, ...],
    executor: Literal["local", "ray"],
    workers: int,
    ray_address: str | None,
    cpus_per_run: float,
    gpus_per_run: float,
    timeout: float | None,
    no_final: bool,
    retry_failed: bool,
    accept: bool,
    dry_run: bool,
    json: bool,
    **asked: Any,
) -> int:
    """Search settings for each method on each dataset, with the same number of trials for all.

    SWEEP names a file of the catalogue (petlbench list sweeps). Trials are judged on validation and never see the test
    split. What is fixed by an option or by --set is not searched; --set also takes names of methods as groups.

    Several processes may work on one sweep at the same time; a stopped one goes on where it was.
    """
    from petlbench.core.catalog import Catalog
    from petlbench.results.tracking.address import choose_address
    from petlbench.run.options import RunOptions
    from petlbench.study.study_file import check_study_name
    from petlbench.sweep.spec import load_sweep

    found = Catalog(catalog)
    changes = {name: value for name, value in (("trials", trials), ("track", track)) if value is not None}
    card = load_sweep(found.find("sweep", sweep), **changes)
    options = RunOptions(
        output,
        data_root,
        cache_dir,
        catalog,
        # Trials lie in a folder of their own, and are tracked with all else.
        choose_address(tracking_uri, output),
        accept=accept,
        cache_size=cache_size,
        cache_images=cache_images,
    )
    requests = _requests(methods, datasets, settings, asked, found)
    named = {"study_name": check_study_name(study or sweep), "timeout": timeout}
    plans = list(_plans(sweep, card, requests, options, named))
    if all(one.search is None for one in plans):
        raise InputError(str(plans[0].refusal), hint="choose another method or backbone", kind="unsupported")
    if dry_run:
        _show_plans(plans, json)
        return 0
    opening: dict[str, Any] = {"workers": workers, "address": ray_address, "cpus": cpus_per_run, "gpus": gpus_per_run}
    if executor == "local":
        _check_data(plans)
    doing = {"workers": max(1, workers), "is_final": not no_final, "retry_failed": retry_failed}
    outcomes = _carry_out(plans, options, storage, executor, opening, doing)
    _show(sweep, outcomes, json)
    return 0 if all(_is_done(outcome) for outcome in outcomes) else 1


def _requests(
    methods: str, datasets: str, settings: Sequence[str], asked: Mapping[str, Any], catalog: Catalog
) -> list[Request]:
    from petlbench.run.resolve import Request

    named = parse_list(methods, "--method", str)
    names = list(catalog.entries("method")) if named == ["all"] else [catalog.find("method", one).name for one in named]
    given = parse_assignments(settings, ("method", "dataset", "training", *names))
    values = request_values(asked, given["training"])
    return [
        Request(
            method=method,
            dataset=dataset,
            method_settings={**given["method"], **given[method]},
            dataset_settings=given["dataset"],
            **values,
        )
        for dataset in parse_list(datasets, "--dataset", str)
        for method in names
    ]


def _plans(
    sweep: str, card: SweepCard, requests: Sequence[Request], options: RunOptions, named: Mapping[str, Any]
) -> Iterator[SearchOutcome]:
    """Plan every search; a method that cannot have one says so, and the others stand."""
    from petlbench.run.options import RunContext
    from petlbench.sweep.outcome import SearchOutcome
    from petlbench.sweep.search import plan_search

    context = RunContext(options)
    for request in requests:
        try:
            search = plan_search(sweep, card, request, context, **named)
        except InputError as error:
            if error.kind != "unsupported":
                raise
            yield SearchOutcome(None, request.method, request.dataset or "", refusal=error.message)
        else:
            yield SearchOutcome(search, request.method, search.dataset)


def _check_data(plans: Sequence[SearchOutcome]) -> None:
    """Open each dataset once, so that one that is not there costs no night."""
    from petlbench.data.dataset import open_dataset

    for search in {one.dataset: one.search for one in plans if one.search is not None}.values():
        settings = search.config.dataset_settings
        open_dataset(
            search.request.dataset or "",
            catalog=search.context.catalog,
            data_root=search.options.data_root,
            settings=settings,
        )


def _carry_out(
    plans: Sequence[SearchOutcome],
    options: RunOptions,
    storage: str | None,
    executor: Literal["local", "ray"],
    opening: dict[str, Any],
    doing: dict[str, Any],
) -> list[SearchOutcome]:
    from petlbench.cli.progress_bars import ShownProgress
    from petlbench.core.files import check_writable
    from petlbench.study.executors import open_executor
    from petlbench.sweep.liveness import Liveness
    from petlbench.sweep.storage import default_address, open_storage
    from petlbench.sweep.sweep import SweepOptions, sweep_one

    check_writable(options.output)
    # Ray prints on standard output what it thinks of a lost node; that is no part of the document.
    with redirect_stdout(sys.stderr), ShownProgress() as progress:
        if storage is None:
            options.output.mkdir(parents=True, exist_ok=True)
        opened = open_storage(storage or default_address(options.output), progress.say)
        with Liveness(options.output) as liveness:
            shared = SweepOptions(opened, open_executor(executor, **opening), liveness, _Lines(progress), **doing)
            return [one if one.search is None else _sweep(one.search, shared, sweep_one) for one in plans]


def _sweep(search: Search, options: SweepOptions, sweep_one: Any) -> SearchOutcome:
    try:
        outcome: SearchOutcome = sweep_one(search, options)
    except KeyboardInterrupt as error:
        raise PetlbenchError(
            f"stopped in the search for {search.title}", hint="the same command goes on from here", kind="interrupted"
        ) from error
    return outcome


class _Lines:
    """One line a trial on standard error, and a bar on a terminal."""

    def __init__(self, progress: ShownProgress) -> None:
        self._progress = progress
        self._best: TrialFacts | None = None

    def say(self, text: str) -> None:
        self._progress.say(text)

    def begin(self, search: Search, trials: Sequence[TrialFacts]) -> None:
        self._best = None
        for trial in trials:
            self._compare(search, trial)
        self._progress.phase(search.title, len(search.points))
        self._progress.advance(len(trials))
        self.say(f"{search.title}: {len(search.points)} trials, {len(trials)} of them done before; {search.card.title}")

    def trial(self, search: Search, trial: TrialFacts) -> None:
        self._compare(search, trial)
        self._progress.advance()
        came = f"{search.card.objective} {trial.value:.4f}" if trial.value is not None else trial.status
        why = f" ({trial.error})" if trial.error else ""
        best = f"; best {self._best.value:.4f}, trial {self._best.number}" if self._best is not None else ""
        self.say(f"trial {trial.number} of {search.title}: {_params(trial.params)}: {came}{why}{best}")

    def _compare(self, search: Search, trial: TrialFacts) -> None:
        if trial.value is None:
            return
        known = self._best.value if self._best is not None else None
        is_better = known is None or (trial.value < known if search.card.minimises else trial.value > known)
        self._best = trial if is_better else self._best


def _params(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.partition('.')[2]} {_short(value)}" for name, value in params.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_done(outcome: SearchOutcome) -> bool:
    if outcome.search is None:  # what cannot be had is no failure of the rest
        return True
    return outcome.winner is not None and all(run["status"] == "finished" for run in outcome.runs)


def _show(sweep: str, outcomes: Sequence[SearchOutcome], json: bool) -> None:
    documents = [outcome.document() for outcome in outcomes]
    if json:
        several = {"sweeps": documents} if len(documents) > 1 else {}
        print_json({"sweep": sweep, **documents[0], **several})
        return
    for outcome in outcomes:
        _show_one(outcome)


def _show_one(outcome: SearchOutcome) -> None:
    if outcome.search is None:
        print(f"{outcome.method} on {outcome.dataset}: {outcome.refusal}")
        return
    card = outcome.search.card
    rows = [
        [str(one.number), _params(one.params), one.status, number(one.value, 4), seconds(one.seconds), one.run_id or ""]
        for one in outcome.trials
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
        lines.append(f"winner: trial {outcome.winner['number']}, {_params(outcome.winner['params'])}")
        lines += [f"on the {one['end']} edge of its range: {one['name']}" for one in outcome.winner["edge"]]
    return "\n".join(lines)


def _metric(run: Mapping[str, Any], split: str) -> str:
    return number(run["metrics"].get(split, {}).get("auc"), 4)


def _show_plans(plans: Sequence[SearchOutcome], json: bool) -> None:
    documents = [_plan_document(one) for one in plans]
    if json:
        print_json({"searches": documents, "trials": sum(one["trials"] for one in documents)})
        return
    rows = [
        [one["method"], one["dataset"], str(one["trials"]), _space(one["space"]), one["error"] or ""]
        for one in documents
    ]
    print_table("searches", ["method", "dataset", "trials>", "searched", "why not"], rows)


def _plan_document(outcome: SearchOutcome) -> dict[str, Any]:
    search = outcome.search
    named = {"method": outcome.method, "dataset": outcome.dataset}
    if search is None:
        return {**named, "search": None, "trials": 0, "space": None, "first": None, "error": outcome.refusal}
    first = dict(search.points[0]) or None
    return {
        **named,
        "search": search.key,
        "trials": len(search.points),
        "space": search.space.document(),
        "first": first,
        "error": None,
    }


def _space(space: Mapping[str, Any] | None) -> str:
    if space is None:
        return MISSING
    shown = [
        f"{name.partition('.')[2]} {', '.join(map(_short, values))}"
        if isinstance(values, list)
        else f"{name.partition('.')[2]} {_short(values['low'])} to {_short(values['high'])}"
        for name, values in space["searched"].items()
    ]
    return "; ".join(shown)
