"""``petlbench results``: find a run, see why two differ, remove some."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petlbench.cli.options import json_option, output_option
from petlbench.cli.output import line_width, print_json, print_table, say
from petlbench.core.errors import InputError
from petlbench.core.units import MISSING, mebibytes, percent, seconds

if TYPE_CHECKING:
    from petlbench.results.index import Summary
    from petlbench.results.stored import Stored

_TRIALS = "trials"
# Characters of a value in a difference, and between two of them.
_SHORTEST, _LONGEST, _APART = 12, 60, 3
_SORTS: dict[str, Callable[[Summary], Any]] = {
    "name": lambda run: (run.method, run.dataset, run.seed, run.run_id),
    "auc": lambda run: -(run.test_auc or -1.0),
    "val-auc": lambda run: -(run.val_auc or -1.0),
    "time": lambda run: -(run.seconds_run or 0),
    "memory": lambda run: -(run.memory_allocated or 0),
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
    import petlbench as pb
    from petlbench.core.user_files import user_path
    from petlbench.results.listing import Listing

    methods, datasets, statuses = map(_names, (method, dataset, status))
    folder = _folder(user_path(output, what="--output"), trials)
    if folder.is_dir() or not folder.parent.is_dir() or not trials:
        listing = pb.list_results(folder, methods=methods, datasets=datasets, statuses=statuses)
    else:  # no search was carried out there
        listing = Listing([], {}, ())
    runs = sorted(listing.runs, key=_SORTS[sort])
    if json:
        print_json({"items": _items(runs, folder), "damaged": list(listing.damaged)})
        return
    headings = ["run", "status", "test AUC, %>", "val AUC, %>", "learnable, %>", "memory, MiB>", "time>"]
    title = f"{len(runs)} runs in {_folder(output, trials)}"
    damaged = f"{len(listing.damaged)} damaged results are passed over." if listing.damaged else ""
    print_table(title, headings, [_row(run) for run in runs], caption=damaged)


@command.command("show", epilog="Example: petlbench results show fpt-digits-s0")
@click.argument("run")
@_trials_option
@output_option
@json_option
def show(run: str, trials: bool, output: Path, json: bool) -> None:
    """Show one run."""
    import petlbench as pb
    from petlbench.cli.commands.run import show_result

    folder = pb.find_run(run, _folder(output, trials))
    result = pb.load_result(folder)
    show_result(result, folder.parent, json)
    if not json and result.error is not None and "traceback" in result.error:
        say(result.error["traceback"])


@command.command("diff", epilog="Example: petlbench results diff fpt-digits-s0 fpt-digits-s1")
@click.argument("runs", nargs=2, metavar="RUN RUN")
@_trials_option
@output_option
@json_option
def diff(runs: tuple[str, str], trials: bool, output: Path, json: bool) -> None:
    """Show in what two runs differ: settings, data, code, packages, machine and figures."""
    import petlbench as pb

    folder = _folder(output, trials)
    differences = pb.diff_results(*runs, folder)
    ids = [pb.find_run(run, folder).name for run in runs]
    if json:
        items = [{"name": name, "values": list(values)} for name, values in differences.items()]
        print_json({"runs": ids, "differences": items})
        return
    room = line_width() - max(map(len, differences), default=0)
    most = min(_LONGEST, max(_SHORTEST, room // len(ids) - _APART))
    rows = [[name, *(_shown(value, most) for value in values)] for name, values in differences.items()]
    title, same = f"first {ids[0]}, second {ids[1]}", "" if rows else "nothing of what a result holds differs"
    print_table(title, ["what", "first", "second"], rows, caption=same)


@command.command("rm", epilog="Example: petlbench results rm --status failed --yes")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--status", help="All runs with these statuses, such as failed,oom.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_trials_option
@output_option
@json_option
def remove(runs: tuple[str, ...], status: str | None, yes: bool, trials: bool, output: Path, json: bool) -> int:
    """Remove runs: their results, and what is kept of unfinished ones. One that is being worked on stays."""
    import petlbench as pb
    from petlbench.core.units import readable_size

    done = pb.remove_results(
        runs, _folder(output, trials), statuses=_names(status) or (), confirm=None if yes else _ask
    )
    if json:
        print_json({"removed": done.removed, "kept": done.kept, "bytes": done.bytes})
    else:
        say(f"removed {len(done.removed)} runs, {readable_size(done.bytes)}")
        for message in done.kept:
            say(f"kept: {message}", err=True)
    return 1 if done.kept else 0


@command.command("track", epilog="Example: petlbench results track --tracking-uri http://HOST:5000")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--tracking-uri", help="MLflow's address.  [default: a file in the output folder]")
@output_option
@json_option
def track(runs: tuple[str, ...], tracking_uri: str | None, output: Path, json: bool) -> int:
    """Send results that an MLflow store lacks; all of them where no run is named."""
    import petlbench as pb

    tracked = pb.track_results(runs, output, tracking_uri=tracking_uri, progress=True)
    if json:
        print_json(asdict(tracked))
    else:
        say(f"{tracked.uri}: {len(tracked.sent)} runs sent, {len(tracked.present)} were there")
        if tracked.error is not None:
            say(f"{len(tracked.missing)} runs are still missing: {tracked.error}", err=True)
    return 0 if tracked.error is None else 1


def _names(text: str | None) -> set[str] | None:
    return None if text is None else {part.strip() for part in text.split(",") if part.strip()}


def _folder(output: Path, trials: bool) -> Path:
    return output / _TRIALS if trials else output


def _ask(runs: Sequence[str]) -> None:
    names = ", ".join(runs[:5]) + (", …" if len(runs) > 5 else "")
    if not sys.stdin.isatty():
        message, hint = f"{len(runs)} runs would be removed: {names}", "give --yes to remove them"
        raise InputError(message, hint=hint, kind="not_confirmed")
    click.confirm(f"remove {len(runs)} runs: {names}?", abort=True, err=True)


def _row(run: Summary) -> list[str]:
    return [
        run.run_id,
        run.status,
        percent(run.test_auc),
        percent(run.val_auc),
        percent(run.learnable_ratio, 3),
        mebibytes(run.memory_allocated),
        seconds(run.seconds_run),
    ]


def _items(runs: Sequence[Summary], folder: Path) -> list[dict[str, Any]]:
    """What JSON says of runs: more than a list does."""
    from petlbench.results.index import stored_results
    from petlbench.results.table import Results

    by_id = {run.run_id: run for run in Results.of(stored_results(folder)).runs} if runs else {}
    return [_item(by_id[run.run_id]) for run in runs if run.run_id in by_id]


def _item(run: Stored) -> dict[str, Any]:
    config = {name: run.config[name] for name in ("method", "dataset", "backbone", "seed")}
    kept = ("run_id", "status", "metrics", "parameters", "memory", "timing", "scores", "error")
    return {**{name: run.document.get(name) for name in kept}, **config}


def _shown(value: Any, most: int) -> str:
    """A value of a result in at most so many characters."""
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
