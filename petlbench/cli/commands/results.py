"""``petlbench results``: find a run, see why two differ, remove some."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from petlbench.cli.options import json_option, output_option
from petlbench.cli.output import print_json, print_table
from petlbench.core.errors import InputError
from petlbench.core.units import MISSING, mebibytes, percent, seconds

if TYPE_CHECKING:
    from petlbench.results.folder import RunFolder
    from petlbench.results.result import Result

__all__ = ["command"]

_TRIALS = "trials"
_SORTS: dict[str, Callable[[Result], Any]] = {
    "name": lambda result: (result.config.method, result.config.dataset, result.config.seed, result.run_id),
    "auc": lambda result: -(_auc(result, "test") or -1.0),
    "val-auc": lambda result: -(_auc(result, "val") or -1.0),
    "time": lambda result: -result.timing.get("total", 0.0),
    "memory": lambda result: -((result.memory.allocated or 0) if result.memory is not None else 0),
}

_trials_option = click.option("--trials", is_flag=True, help="Look among the trials of sweeps instead.")


@click.group("results", epilog="Example: petlbench results list --status failed")
def command() -> None:
    """Find a run, see why two differ, remove some. RUN is a run's id, the beginning of one, or a result's folder."""


@command.command("list", epilog="Example: petlbench results list --method fpt,lora --dataset digits --sort auc")
@click.option("--method", help="Of these methods, with commas between them.")
@click.option("--dataset", help="On these datasets, with commas between them.")
@click.option("--status", help="With these statuses, such as failed,oom.")
@click.option("--sort", type=click.Choice(list(_SORTS)), default="name", show_default=True, help="Best or most first.")
@_trials_option
@output_option
@json_option
def list_results(
    method: str | None, dataset: str | None, status: str | None, sort: str, trials: bool, output: Path, json: bool
) -> None:
    """List the runs that have a result."""
    from petlbench.results.result import iter_results
    from petlbench.results.table import with_scores

    folder = _folder(output, trials)
    matching = filter(_filter(method, dataset, status), iter_results(folder))
    results = sorted(with_scores(matching, folder), key=_SORTS[sort])
    if json:
        print_json({"items": [_item(result) for result in results]})
        return
    headings = ["run", "status", "test AUC, %>", "val AUC, %>", "learnable, %>", "memory, MiB>", "time>"]
    print_table(f"{len(results)} runs in {folder}", headings, [_row(result) for result in results])


@command.command("show", epilog="Example: petlbench results show fpt-digits-s0")
@click.argument("run")
@_trials_option
@output_option
@json_option
def show(run: str, trials: bool, output: Path, json: bool) -> None:
    """Show one run."""
    from petlbench.cli.commands.run import show_result
    from petlbench.results.result import read_result

    folder = _find(run, output, trials)
    result = read_result(folder.final)
    show_result(result, folder.output, json)
    if not json and result.error is not None and "traceback" in result.error:
        print(result.error["traceback"])


@command.command("diff", epilog="Example: petlbench results diff fpt-digits-s0 fpt-digits-s1")
@click.argument("runs", nargs=2, metavar="RUN RUN")
@_trials_option
@output_option
@json_option
def diff(runs: tuple[str, str], trials: bool, output: Path, json: bool) -> None:
    """Show in what two runs differ: settings, data, code, packages, machine and figures."""
    from petlbench.results.result import read_result
    from petlbench.results.stored import compare_results

    first, second = (read_result(_find(run, output, trials).final) for run in runs)
    differences = compare_results(first, second)
    if json:
        items = [{"name": name, "values": list(values)} for name, values in differences.items()]
        print_json({"runs": [first.run_id, second.run_id], "differences": items})
        return
    rows = [[name, *map(_shown, values)] for name, values in differences.items()]
    same = "" if rows else "nothing of what a result holds differs"
    print_table("differences", ["what", first.run_id, second.run_id], rows, caption=same)


@command.command("rm", epilog="Example: petlbench results rm --status failed --yes")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--status", help="All runs with these statuses, such as failed,oom.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_trials_option
@output_option
@json_option
def remove(runs: tuple[str, ...], status: str | None, yes: bool, trials: bool, output: Path, json: bool) -> int:
    """Remove runs: their results, and what is kept of unfinished ones. One that is being worked on stays."""
    from petlbench.core.errors import RunError
    from petlbench.core.units import readable_size
    from petlbench.results.folder import remove_run

    folders = _folders(runs, status, _folder(output, trials))
    if folders and not yes:
        _ask(folders)
    removed, freed, kept = [], 0, []
    for folder in folders:
        try:
            freed += remove_run(folder)
            removed.append(folder.run_id)
        except RunError as error:
            kept.append(error.message)
    if json:
        print_json({"removed": removed, "kept": kept, "bytes": freed})
    else:
        print(f"removed {len(removed)} runs, {readable_size(freed)}")
        for message in kept:
            print(f"kept: {message}", file=sys.stderr)
    return 1 if kept else 0


@command.command("track", epilog="Example: petlbench results track --tracking-uri http://HOST:5000")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--tracking-uri", help="MLflow's address.  [default: a file in the output folder]")
@output_option
@json_option
def track(runs: tuple[str, ...], tracking_uri: str | None, output: Path, json: bool) -> int:
    """Send results that an MLflow store lacks; all of them where no run is named."""
    from petlbench.core.progress_bars import ShownProgress
    from petlbench.results.tracking.backfill import track_results

    names = [_find(run, output, trials=False).run_id for run in runs]
    with ShownProgress() as progress:
        tracked = track_results(tracking_uri, output, names, progress=progress)
    if json:
        print_json(asdict(tracked))
    else:
        print(f"{tracked.uri}: {len(tracked.sent)} runs sent, {len(tracked.present)} were there")
        if tracked.error is not None:
            print(f"{len(tracked.missing)} runs are still missing: {tracked.error}", file=sys.stderr)
    return 0 if tracked.error is None else 1


def _filter(method: str | None, dataset: str | None, status: str | None) -> Callable[[Result], bool]:
    """Whether a result is asked for."""
    from petlbench.results.result import Status

    methods, datasets, statuses = map(_names, (method, dataset, status))
    for name in statuses or ():
        if name not in get_args(Status):
            hint = f"known: {', '.join(get_args(Status))}"
            raise InputError(f"--status {name}: there is no such status", hint=hint, kind="unknown_status")

    def matches(result: Result) -> bool:
        config = result.config
        return (
            (methods is None or config.method in methods)
            and (datasets is None or bool({config.dataset, config.dataset_name} & datasets))
            and (statuses is None or result.status in statuses)
        )

    return matches


def _names(text: str | None) -> set[str] | None:
    return None if text is None else {part.strip() for part in text.split(",") if part.strip()}


def _folder(output: Path, trials: bool) -> Path:
    return output / _TRIALS if trials else output


def _find(run: str, output: Path, trials: bool) -> RunFolder:
    from petlbench.results.folder import find_run

    return find_run(run, _folder(output, trials))


def _folders(runs: Sequence[str], status: str | None, output: Path) -> list[RunFolder]:
    from petlbench.results.folder import RunFolder, find_run
    from petlbench.results.result import iter_results

    if not runs and status is None:
        raise InputError("no run is named", hint="name runs, or a --status", kind="usage")
    matches = _filter(None, None, status)
    folders = [find_run(run, output) for run in runs]
    if status is not None:
        folders += [RunFolder(output, result.run_id) for result in filter(matches, iter_results(output))]
    return list({folder.final: folder for folder in folders}.values())


def _ask(folders: Sequence[RunFolder]) -> None:
    names = ", ".join(folder.run_id for folder in folders[:5]) + (", …" if len(folders) > 5 else "")
    if not sys.stdin.isatty():
        raise InputError(
            f"{len(folders)} runs would be removed: {names}", hint="give --yes to remove them", kind="not_confirmed"
        )
    click.confirm(f"remove {len(folders)} runs: {names}?", abort=True, err=True)


def _row(result: Result) -> list[str]:
    parameters, memory = result.parameters, result.memory
    return [
        result.run_id,
        result.status,
        percent(_auc(result, "test")),
        percent(_auc(result, "val")),
        percent(parameters.ratio, 3) if parameters is not None else MISSING,
        mebibytes(memory.allocated) if memory is not None else MISSING,
        seconds(result.timing.get("total")),
    ]


def _item(result: Result) -> dict[str, Any]:
    document = result.document()
    config = {name: document["config"][name] for name in ("method", "dataset", "backbone", "seed")}
    kept = ("run_id", "status", "metrics", "parameters", "memory", "timing", "scores", "error")
    return {**{name: document[name] for name in kept}, **config}


def _auc(result: Result, split: str) -> float | None:
    value = result.metrics.get(split, {}).get("auc")
    return None if value is None else float(value)


def _shown(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
